//! Two network namespaces with a cable between them that can be cut: the server lives in one, its
//! clients in the other. Nothing of the machine's own network is touched.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::alone::skipped::skip;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The server's address.
pub const SERVER: &str = "10.199.7.1";

/// The two namespaces; they are gone when it is dropped, however the test ended.
pub struct Link {
    server: String,
    client: String,
}

/// Runs `ip` with these words.
fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("ip {words}: {}", why.trim()))
        }
        Err(error) => Err(format!("ip {words}: {error}")),
    }
}

impl Link {
    /// Lays the cable. `None`, and a loud word, where that is not allowed: it needs root and the
    /// `ip` command. With `PEREGRINE_REQUIRE_NETNS` set that is a failure.
    pub fn lay() -> Option<Self> {
        clear_away();
        let id = std::process::id();
        let link = Self { server: format!("prg-{id}-s"), client: format!("prg-{id}-c") };
        match link.set_up() {
            Ok(()) => Some(link),
            Err(why) if std::env::var_os("PEREGRINE_REQUIRE_NETNS").is_some() => panic!("{why}"),
            Err(why) => {
                skip(
                    "links that are cut",
                    &format!("no network namespace can be made here: {why}"),
                );
                None
            }
        }
    }

    fn set_up(&self) -> Result<(), String> {
        let Self { server, client } = self;
        ip(&format!("netns add {server}"))?;
        ip(&format!("netns add {client}"))?;
        ip(&format!(
            "link add name cable netns {server} type veth peer name cable netns {client}"
        ))?;
        for (namespace, address) in [(server, SERVER), (client, "10.199.7.2")] {
            ip(&format!("-n {namespace} address add {address}/24 dev cable"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
            ip(&format!("-n {namespace} link set cable up"))?;
        }
        Ok(())
    }

    /// Cuts the cable at the client's end. Neither side is told.
    pub fn cut(&self) {
        ip(&format!("-n {} link set cable down", self.client)).expect("it was up");
    }

    /// Mends it.
    pub fn mend(&self) {
        ip(&format!("-n {} link set cable up", self.client)).expect("it was down");
    }

    /// Runs something where the server lives: its sockets and threads stay there.
    pub fn at_server<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        run_within(&self.server, run)
    }

    /// Runs something where the clients live.
    pub fn at_client<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        run_within(&self.client, run)
    }
}

fn run_within<T: Send>(namespace: &str, run: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(Path::new("/run/netns").join(namespace)).expect("a namespace");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).expect("root may");
            run()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Link {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            // If it was never made, there is nothing to remove.
            let _ = ip(&format!("netns delete {namespace}"));
        }
    }
}

/// Removes what a test has left that was killed.
fn clear_away() {
    let Ok(namespaces) = fs::read_dir("/run/netns") else { return };
    for namespace in namespaces.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let process = namespace.strip_prefix("prg-").and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = ip(&format!("netns delete {namespace}"));
        }
    }
}
