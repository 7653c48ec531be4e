//! A page that saves when it is left: the message, the browser's Close and the end of TCP come at
//! once, while the handler's work has only begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use peregrine::{Callbacks, Reply, Response};

use super::{LOOK_EVERY, in_a_browser};
use crate::common::{PATIENCE, start};

const PAGE: &str = "<!doctype html><title>wait</title><script>
    const ws = new WebSocket(`ws://${location.host}/save`);
    ws.onopen = () => { document.title = 'open'; };
    addEventListener('pagehide', () => ws.send('save'));
</script>";

const VISIT_COUNT: usize = 20;

#[test]
fn what_a_page_saves_when_it_is_left_is_saved() {
    in_a_browser(async |_chat, browser| {
        let [asked_count, saved_count] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (asked, saved) = (Arc::clone(&asked_count), Arc::clone(&saved_count));
        let handler = Callbacks::<()>::new().on_message(move |_ws, _message| {
            asked.fetch_add(1, Ordering::SeqCst);
            let saved = Arc::clone(&saved);
            Reply::offload(move || {
                // As long as a small write to a disk.
                thread::sleep(Duration::from_millis(30));
                saved.fetch_add(1, Ordering::SeqCst);
            })
        });
        let server =
            start(2, |builder| builder.websocket("/save", handler).get("/", Response::html(PAGE)));
        let url = format!("http://{}/", server.local_addr());
        for _ in 0..VISIT_COUNT {
            browser.client.goto(&url).await.expect("a page");
            let is_open = async {
                while browser.client.title().await.expect("a page") != "open" {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            tokio::time::timeout(PATIENCE, is_open).await.expect("it connects");
            browser.client.goto("about:blank").await.expect("a blank page");
        }
        let all_are_saved = async {
            while saved_count.load(Ordering::SeqCst) < VISIT_COUNT {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let is_in_time = tokio::time::timeout(PATIENCE, all_are_saved).await.is_ok();
        let counts = [&asked_count, &saved_count].map(|count| count.load(Ordering::SeqCst));
        assert!(is_in_time, "of {VISIT_COUNT} saves, asked for and done: {counts:?}");
        assert_eq!(server.hub().cancelled_count(), 0);
    });
}
