//! `examples/seeds.rs` does what it says.

#![allow(dead_code, reason = "the example's main is not called here")]

#[path = "../../examples/seeds.rs"]
mod pages;

use super::common::{Client, start};
use super::{enough_for, id_of, on_every_shard_count};

#[test]
fn the_example_answers_as_the_seed_pages_do() {
    on_every_shard_count(|shards| {
        let running = start(shards, |_| pages::app().shards(shards));
        let connect = |path| Client::connect(running.local_addr(), path);

        let mut client = connect("/web_socket");
        assert_eq!(client.text(), "Connected to ws");
        client.send("hi");
        assert_eq!(client.text(), "Hello world, from ws");
        client.0.close(None).expect("the server reads");
        assert_eq!(client.text(), "Goodbye world, from ws");
        assert_eq!(client.closed(), None);

        let mut client = connect("/state");
        assert!(client.text().starts_with("Your id is "));
        for answer in ["Whaaat??", "Whooo??", "*chika* *chika* Slim Shady.", "Whaaat??"] {
            client.send("hi");
            assert_eq!(client.text(), answer);
        }

        let mut client = connect("/close");
        client.send("hi");
        assert_eq!(client.text(), "Message received");
        client.send("disconnect");
        assert_eq!(client.text(), "Closing connection");
        assert_eq!(client.close_code(), 1000);

        let mut client = connect("/closures");
        assert_eq!(client.text(), "Connected to ws");
        client.send("four");
        assert!(client.text().ends_with(" said 4 bytes"));
        client.0.close(None).expect("the server reads");
        assert_eq!(client.text(), "Goodbye, closed by the peer with 1005");
        assert_eq!(client.closed(), None);
    });
}

#[test]
fn the_example_answers_later_injects_and_mounts_as_the_seed_pages_do() {
    on_every_shard_count(|shards| {
        let running = start(shards, |_| pages::app().shards(shards));
        let connect = |path| Client::connect(running.local_addr(), path);

        let mut client = connect("/async");
        client.send("count");
        client.send("hi");
        client.send("disconnect");
        let answers = ["Connected to ws", "500000500000", "You said hi", "Closing connection"];
        for answer in answers.into_iter().chain(["Goodbye world, from ws"]) {
            assert_eq!(client.text(), answer);
        }
        assert_eq!(client.close_code(), 1000);

        for (path, found) in [
            ("/dependencies", "GLOBAL DEPENDENCY, no router's"),
            ("/frontend/dependencies", "GLOBAL DEPENDENCY, ROUTER DEPENDENCY"),
        ] {
            let mut client = connect(path);
            client.send("hi");
            assert_eq!(client.text(), found);
        }
        assert_eq!(connect("/frontend/web_socket").text(), "Connected to ws");
        assert!(Client::try_connect(running.local_addr(), "/frontend").is_err(), "it is a page");
    });
}

#[test]
fn the_example_tells_what_became_of_its_messages_as_the_seed_pages_do() {
    on_every_shard_count(|shards| {
        let running = start(shards, |_| pages::app().shards(shards));
        let connect = |path| Client::connect(running.local_addr(), path);

        let count = enough_for(shards);
        let mut clients: Vec<_> = (0..count).map(|_| connect("/async_send_to")).collect();
        let ids: Vec<_> = clients.iter_mut().map(id_of).collect();
        for (client, id) in ids.iter().enumerate() {
            clients[0].send(id.to_string());
            assert_eq!(clients[client].text(), "This is a message to you");
            assert_eq!(clients[0].text(), "Sent");
        }

        let mut clients: Vec<_> = (0..count).map(|_| connect("/async_broadcast")).collect();
        clients[1].send("This is a message to all clients");
        assert!(clients.iter_mut().all(|c| c.text() == "This is a message to all clients"));
        assert_eq!(clients[1].text(), format!("It reached {count}"));
    });
}

#[test]
fn the_example_reaches_one_and_all_as_the_seed_pages_do() {
    on_every_shard_count(|shards| {
        let running = start(shards, |_| pages::app().shards(shards));
        let connect = |path| Client::connect(running.local_addr(), path);

        let mut clients: Vec<_> = (0..enough_for(shards)).map(|_| connect("/send_to")).collect();
        let ids: Vec<_> = clients.iter_mut().map(id_of).collect();
        clients[0].send("hi");
        assert_eq!(clients[0].text(), "This is a message to self");
        for (client, id) in ids.iter().enumerate().skip(1) {
            clients[0].send(format!("{id} hello you"));
            assert_eq!(clients[client].text(), "hello you");
        }

        let mut clients: Vec<_> = (0..enough_for(shards)).map(|_| connect("/broadcast")).collect();
        clients[1].send("This is a message to all clients");
        assert!(clients.iter_mut().all(|c| c.text() == "This is a message to all clients"));
        assert_eq!(clients[1].text(), "");

        let mut strangers = [connect("/query_params"), connect("/query_params?name=gary")];
        let mut gary = connect("/query_params?name=gary&desg=professor");
        for (stranger, name) in strangers.iter_mut().zip(["Nobody", "gary"]) {
            stranger.send("hi");
            assert_eq!(stranger.text(), format!("{name} is not authorized"));
        }
        gary.send("hi");
        for client in strangers.iter_mut().chain([&mut gary]) {
            assert_eq!(client.text(), "Gary authorized to broadcast");
        }
    });
}
