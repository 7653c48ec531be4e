//! A process that is out of file descriptors. The limit is the process's, so this is a test in a
//! process of its own.

use std::fs::File;
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use peregrine::{Callbacks, Limits};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{LIMIT, SHORT, slow};
use crate::common::{start, within};
use crate::raw::{Bystander, Raw, TEXT, frame, upgrade};

const CHILD: &str = "PEREGRINE_OUT_OF_DESCRIPTORS";
/// All that the process may have open.
const DESCRIPTOR_COUNT: u64 = 64;

#[test]
fn out_of_descriptors_the_listener_rests_and_goes_on_when_some_are_free() {
    if std::env::var_os(CHILD).is_some() {
        return run_out();
    }
    let name = "descriptors::out_of_descriptors_the_listener_rests_and_goes_on_when_some_are_free";
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program).args(["--exact", name]).env(CHILD, "1").output();
    let child = child.expect("a process");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

fn run_out() {
    within(LIMIT, || {
        let mut limits = Limits::default();
        limits.connection_count = Some(10_000);
        let (told, shards) = std::sync::mpsc::channel();
        let echo = Callbacks::<()>::new().on_message(move |_, message| {
            let _ = told.send(slow::this_thread());
            message.into()
        });
        let server = start(1, |builder| builder.limits(limits).websocket("/echo", echo));
        let address = server.local_addr();
        let mut bystander = Bystander::connect(address, "/echo");
        bystander.is_served();
        let shard = shards.recv().expect("it was served");
        // What measures must not need a descriptor when there are none.
        let clock = slow::ProcessorClock::new(shard);
        let rest = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTOR_COUNT), ..rest })
            .expect("a limit may be lowered");

        let mut spares: Vec<File> = (0..5).map(|_| File::open("/dev/null").expect("one")).collect();
        let mut crowd: Vec<TcpStream> = Vec::new();
        while let Ok(socket) = TcpStream::connect(address) {
            crowd.push(socket);
            bystander.is_served();
        }
        // Each of these leaves the server none for its own side.
        while let Some(spare) = spares.pop() {
            drop(spare);
            crowd.extend(TcpStream::connect(address));
        }
        bystander.is_served();
        let waiting = crowd.len() + 1 - server.hub().connection_counts()[0];
        assert!(waiting > 0, "the server has a descriptor for each");
        bystander.is_served();
        let before = clock.now();
        // Not a wait for anything: this is what is measured.
        thread::park_timeout(SHORT);
        let spent = clock.now() - before;
        assert!(spent < SHORT / 4, "waiting for descriptors costs {spent:?} in {SHORT:?}");
        bystander.is_served();

        // The last to come were not accepted; now they are.
        let mut last = Raw::over(crowd.pop().expect("a crowd"));
        last.limit_time();
        crowd.drain(..10);
        last.send([upgrade("/echo").into_bytes(), frame(TEXT, b"at last")].concat());
        assert_eq!(last.head().status, 101);
        assert_eq!(last.text(), "at last");
        bystander.is_served();
    });
}
