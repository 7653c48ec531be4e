//! Servers of peregrine and of its peers, one process each, that do the same: `/echo` returns what
//! comes, `/all` says it to all who are there, its sender included.
//!
//! ```text
//! cargo run --release -p peregrine-peers -- serve NAME ADDRESS [--shards N]
//! ```
//!
//! Knows the command line. Must not know any server: `servers` does.

mod servers;

use std::env;
use std::net::SocketAddr;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::servers::{Plan, SERVERS, Serve};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (serve, plan) = match understand(&arguments) {
        Ok(understood) => understood,
        Err(complaint) => {
            eprintln!("{complaint}\nusage: serve NAME ADDRESS [--shards N]");
            return ExitCode::from(2);
        }
    };
    raise_descriptor_limit();
    match serve(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", plan.name);
            ExitCode::FAILURE
        }
    }
}

fn understand(arguments: &[String]) -> Result<(Serve, Plan), String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, address, shards) = match arguments[..] {
        ["serve", name, address] => (name, address, "1"),
        ["serve", name, address, "--shards", shards] => (name, address, shards),
        _ => return Err("what is asked for is not clear".to_owned()),
    };
    let Some(&(name, serve)) = SERVERS.iter().find(|server| server.0 == name) else {
        let names = SERVERS.map(|server| server.0).join(", ");
        return Err(format!("there is no server {name:?}, only {names}"));
    };
    let address: SocketAddr =
        address.parse().map_err(|_| format!("{address:?} is no address like 127.0.0.1:9001"))?;
    let Ok(shard_count @ 1..) = shards.parse() else {
        return Err(format!("{shards:?} is no number of shards"));
    };
    Ok((serve, Plan { name, address, shard_count }))
}

/// As many connections as the machine allows.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        eprintln!("the limit of descriptors stays as it is: {error}");
    }
}
