//! Output that the kernel takes in parts: pages, and the end behind the last frame.

use std::sync::{Mutex, mpsc};

use peregrine::testing::{TestRequest, TestServer};
use peregrine::{Callbacks, MessageWriter, Reply, Response, Server};

#[test]
fn a_page_with_bytes_like_frames_leaves_whole_however_much_the_kernel_takes() {
    let is_pong = |at: u32| at.is_multiple_of(2);
    let byte = |at: u32| if is_pong(at) { 0x8A } else { (at / 2 % 100) as u8 };
    let body: Vec<u8> = (0..5000).map(byte).collect();
    let page = Response::new(200).body(body.clone());
    let mut server = TestServer::new(Server::builder().get("/page", page)).expect("a server");
    let request = "GET /page HTTP/1.1\r\nHost: a\r\n\r\n";
    let client = server.open();
    server.send_bytes(client, request);
    let one = server.take_bytes(client);
    assert!(one.ends_with(&body));
    for pipe_bytes in (100..one.len() * 3).step_by(97) {
        server.set_pipe_bytes(pipe_bytes);
        let client = server.open();
        server.stop_reading(client);
        server.send_bytes(client, request.repeat(3));
        server.start_reading(client);
        server.settle();
        assert!(server.take_bytes(client) == one.repeat(3), "a pipe of {pipe_bytes} bytes");
    }
}

/// The peer's Close comes while a message in pieces has begun and nothing of it was sent. Our Close
/// frame fills the pipe.
#[test]
fn the_end_follows_a_close_frame_that_fills_the_kernel() {
    for fill_bytes in [900, 1000 - 4 - 4] {
        let (sender, streams) = mpsc::channel::<MessageWriter<str>>();
        let sender = Mutex::new(sender);
        let handler = Callbacks::<()>::new().on_message(move |ws, message| {
            if message.as_text() == Some("begin") {
                let stream = ws.stream::<str>().expect("no other one");
                sender.lock().expect("no panic").send(stream).expect("the test listens");
                return Reply::none();
            }
            message.into()
        });
        let builder = Server::builder().websocket("/", handler);
        let mut server = TestServer::new(builder).expect("a server");
        server.set_pipe_bytes(1000);
        let client = server.connect(TestRequest::new("/")).expect("open");
        // Afterwards there is a spare queue.
        server.hub().send_to(server.id(client), "spare").expect("open");
        server.settle();
        server.stop_reading(client);
        server.send(client, "x".repeat(fill_bytes));
        server.send(client, "begin");
        let stream = streams.try_recv().expect("begun");
        server.close(client, 1000, "");
        drop(stream);
        server.settle();
        server.start_reading(client);
        server.settle();
        assert!(server.has_ended(client), "the client has read all: {fill_bytes}");
    }
}
