//! What the application does around the threads of the shards; above all, a runtime's context.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

use peregrine::{Callbacks, Error, Reply, Server, ServerBuilder, Upgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use super::LIMIT;
#[cfg(feature = "testing")]
use crate::common::PATIENCE;
use crate::common::{Client, start, within};

/// How long futures sleep, by a timer of tokio's.
const NAP: Duration = Duration::from_millis(5);

fn in_context(builder: ServerBuilder, runtime: &Runtime) -> ServerBuilder {
    let tokio = runtime.handle().clone();
    builder.on_shard_thread(move |shard| {
        let _context = tokio.enter();
        shard.run()
    })
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("threads")
}

/// A handler whose every answer needs tokio: a timer, a socket, a task.
fn needy(runtime: &Runtime) -> Callbacks<()> {
    let listen = tokio::net::TcpListener::bind("127.0.0.1:0");
    let listener = runtime.block_on(listen).expect("a free port");
    let echo = listener.local_addr().expect("an address");
    runtime.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut input, mut output) = socket.split();
                let _ = tokio::io::copy(&mut input, &mut output).await;
            });
        }
    });
    Callbacks::with_upgrade(|_| {
        Upgrade::later(async {
            tokio::time::sleep(NAP).await;
            Upgrade::accept(())
        })
    })
    .on_message(move |ws, message| match message.as_text() {
        Some("sleep") => Reply::later(async {
            tokio::time::sleep(NAP).await;
            "slept"
        }),
        Some("socket") => Reply::later(async move {
            let mut socket = tokio::net::TcpStream::connect(echo).await.ok()?;
            socket.write_all(b"through tokio").await.ok()?;
            let mut answer = [0; 13];
            socket.read_exact(&mut answer).await.ok()?;
            String::from_utf8(answer.to_vec()).ok()
        }),
        Some("then") => {
            let nap = async { tokio::time::timeout(NAP, std::future::pending::<()>()).await };
            ws.later_then(nap, |_, outcome| match outcome {
                Ok(()) => "never".to_owned(),
                Err(elapsed) => elapsed.to_string(),
            })
        }
        _ => Reply::later(async { tokio::spawn(async { "from a task" }).await.unwrap_or("none") }),
    })
}

#[test]
fn a_future_sleeps_and_speaks_to_sockets_of_a_runtime_whose_context_its_thread_is_in() {
    within(LIMIT, || {
        for shard_count in [1, 2] {
            let runtime = runtime();
            let needy = needy(&runtime);
            let server = start(shard_count, |app| in_context(app, &runtime).websocket("/", needy));
            let mut clients: Vec<_> =
                (0..6).map(|_| Client::connect(server.local_addr(), "/")).collect();
            for client in &mut clients {
                for (asked, answer) in [
                    ("sleep", "slept"),
                    ("socket", "through tokio"),
                    ("then", "deadline has elapsed"),
                    ("spawn", "from a task"),
                ] {
                    client.send(asked);
                    assert_eq!(client.text(), answer);
                }
            }
            drop(clients);
            server.shutdown(LIMIT).expect("no thread panicked");
        }
    });
}

#[cfg(feature = "testing")]
#[test]
fn the_test_kit_is_in_the_context_whenever_a_shard_has_a_turn_and_never_else() {
    use peregrine::testing::{Received, TestServer};
    use tokio::runtime::Handle;

    within(LIMIT, || {
        let runtime = runtime();
        let app = in_context(Server::builder(), &runtime).websocket("/", needy(&runtime));
        let mut server = TestServer::new(app.shards(2)).expect("a right server");
        let clients = [(); 4].map(|()| server.connect("/").expect("it is granted"));
        for client in clients {
            for (asked, answer) in [("sleep", "slept"), ("socket", "through tokio")] {
                server.send(client, asked);
                let received = server.receive_within(client, PATIENCE);
                assert_eq!(received, Some(Received::Text(answer.into())));
            }
        }
        assert!(Handle::try_current().is_err(), "the test's own code is outside");
        // What a future holds is dropped inside, too.
        server.send(clients[0], "sleep");
        drop(server);
    });
}

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Notes that it was dropped, and on which thread.
struct Kept(mpsc::Sender<(&'static str, ThreadId)>, &'static str);

impl Drop for Kept {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send((self.1, thread::current().id()));
    }
}

#[test]
fn each_shards_thread_is_wrapped_once_and_what_the_closure_holds_is_dropped_there_after_all_else() {
    within(LIMIT, || {
        let (tell, told) = mpsc::channel();
        let threads = Arc::new(Mutex::new(Vec::new()));
        let (wrapped, of_session) = (Arc::clone(&threads), Mutex::new(tell.clone()));
        let handler = Callbacks::<Option<Kept>>::new()
            .on_connect(move |ws| {
                assert_eq!(DEPTH.get(), 2, "both closures are around the handler");
                let tell = of_session.lock().expect("no panic").clone();
                *ws.session_mut() = Some(Kept(tell, "session"));
                ().into()
            })
            .on_message(|_, _| Reply::later(std::future::pending::<()>()));
        let of_thread = Mutex::new(tell);
        let server = start(2, |app| {
            app.websocket("/", handler)
                .on_shard_thread(move |shard| {
                    assert_eq!(DEPTH.replace(1), 0, "the first closure is the outer one");
                    let place = (shard.shard(), thread::current().id());
                    wrapped.lock().expect("no panic").push(place);
                    let tell = of_thread.lock().expect("no panic").clone();
                    let _kept = Kept(tell, "thread");
                    shard.run()
                })
                .on_shard_thread(|shard| {
                    assert_eq!(DEPTH.replace(2), 1, "the second closure is the inner one");
                    shard.run()
                })
        });
        let mut clients: Vec<_> =
            (0..8).map(|_| Client::connect(server.local_addr(), "/")).collect();
        clients.iter_mut().for_each(|client| client.send("wait"));
        drop(server);
        let threads = threads.lock().expect("no panic").clone();
        let shards: BTreeSet<_> = threads.iter().map(|&(shard, _)| shard).collect();
        assert_eq!((threads.len(), shards), (2, BTreeSet::from([0, 1])));
        let told: Vec<_> = told.try_iter().collect();
        for (_, thread) in threads {
            let of_this: Vec<_> =
                told.iter().filter(|&&(_, id)| id == thread).map(|&(what, _)| what).collect();
            assert_eq!(of_this.last(), Some(&"thread"), "{of_this:?}");
            assert_eq!(of_this.iter().filter(|&&what| what == "thread").count(), 1);
        }
        assert_eq!(told.iter().filter(|&&(what, _)| what == "session").count(), 8);
    });
}

#[test]
fn a_closure_that_panics_ends_the_server_and_its_error_says_so() {
    within(LIMIT, || {
        type Around = fn(peregrine::ShardThread<'_>) -> peregrine::ShardEnded;
        let closures: [Around; 2] = [
            |shard| match shard.shard() {
                1 => panic!("as the test wants"),
                _ => shard.run(),
            },
            |shard| {
                let index = shard.shard();
                let ended = shard.run();
                assert_ne!(index, 1, "as the test wants");
                ended
            },
        ];
        for (at, around) in closures.into_iter().enumerate() {
            for shard_count in [2, 3] {
                let closed = Arc::new(AtomicUsize::new(0));
                let counter = Arc::clone(&closed);
                let echo = Callbacks::<()>::new().on_close(move |_, _| {
                    counter.fetch_add(1, Ordering::SeqCst);
                    ().into()
                });
                let app = Server::builder().shards(shard_count).websocket("/", echo);
                let app = app.on_shard_thread(around).bind("127.0.0.1:0").expect("a free port");
                let running = app.start().expect("threads");
                if at == 1 {
                    running.hub().shutdown(LIMIT);
                }
                // With the first one it ends by itself.
                match running.join() {
                    Err(error @ Error::ShardThread(1)) => {
                        assert!(error.to_string().contains("on_shard_thread"), "{error}");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}
