//! SEEDS
use peregrine::{Callbacks, Server};
#[test]
fn smoke() {
    let echo = Callbacks::<()>::new()
        .on_connect(|_| "hi".into())
        .on_message(|ws, message| {
            if message.as_text() == Some("quit") {
                ws.close();
                return "closing".into();
            }
            if message.as_text() == Some("all") {
                ws.broadcast("B").unwrap();
            }
            message.into()
        })
        .on_close(|_, _| "bye".into());
    let running = Server::builder()
        .websocket("/echo", echo)
        .get("/", "x")
        .bind("127.0.0.1:0")
        .unwrap()
        .start()
        .unwrap();
    let (mut c, r) =
        tungstenite::connect(format!("ws://{}/echo?x=1", running.local_addr())).unwrap();
    println!("{r:?}");
    println!("{:?}", c.read());
    c.send(tungstenite::Message::text("a")).unwrap();
    println!("{:?}", c.read());
    c.send(tungstenite::Message::text("all")).unwrap();
    println!("{:?}", c.read());
    println!("{:?}", c.read());
    c.send(tungstenite::Message::Ping("zz".into())).unwrap();
    println!("{:?}", c.read());
    c.send(tungstenite::Message::text("quit")).unwrap();
    for _ in 0..5 {
        println!("{:?}", c.read());
    }
    println!("{:?}", running.shutdown(std::time::Duration::from_secs(1)));
}
