//! What tests and benchmarks share: the peers as processes of their own, and the client.

#![allow(dead_code, reason = "no program uses all of it")]

#[path = "../../../throughput/client.rs"]
pub(crate) mod client;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// The program that serves.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_peregrine-peers");

/// All that it serves.
pub(crate) const NAMES: [&str; 5] =
    ["peregrine", "tokio-tungstenite", "fastwebsockets", "axum", "actix-ws"];

/// A server in a process of its own, which ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Starts one at a free port; it listens when this returns.
    pub(crate) fn start(name: &str, shard_count: usize) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["serve", name, "127.0.0.1:0", "--shards", &shard_count.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = child.stdout.take().expect("it is piped");
        let mut process = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("it says something");
        let said = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(" listening on "));
        let (address, pid) = said.and_then(|rest| rest.split_once(", pid ")).expect("where");
        assert_eq!(pid.trim(), process.pid().to_string());
        process.address = address.parse().expect("an address");
        process
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
