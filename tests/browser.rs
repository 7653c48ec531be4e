//! The chat example in a real browser: its page in headless Chromium, driven through chromedriver.
//!
//! Where Chromium or chromedriver is missing, the tests that need them say so and pass; with
//! `PEREGRINE_REQUIRE_BROWSER` set in the environment they fail instead.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod common;
#[path = "browser/leaving.rs"]
mod leaving;
#[path = "browser/page.rs"]
mod page;
#[path = "common/process.rs"]
mod process;
#[path = "common/skipped.rs"]
mod skipped;

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use common::{Client, PATIENCE};
use fantoccini::wd::{Capabilities, WindowHandle};
use fantoccini::{ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::Process;

/// The time limit of one test. It is kept inside the runtime and not by a thread of its own, so
/// that whatever happens the test's processes are dropped, and thereby killed, with it.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two looks at a page. Nothing depends on it but how soon a change is seen.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The chat example, serving on a port of its own.
struct Chat {
    process: Process,
    address: SocketAddr,
}

impl Chat {
    fn start() -> Self {
        let process = Process::start(process::example("chat").args([
            "--addr",
            "127.0.0.1:0",
            "--shards",
            "2",
        ]));
        let address = process.after("http://");
        let address = address.trim_end_matches('/').parse().expect("an address");
        Self { process, address }
    }
}

/// Finds a program as a shell would.
fn find(program: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    found.ok_or(format!("there is no {program} in PATH"))
}

/// A browser with a profile of its own.
struct Browser {
    client: fantoccini::Client,
    _driver: Process,
    _profile: Profile,
}

/// An empty directory, removed when dropped.
struct Profile(PathBuf);

impl Profile {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (own, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("profile-{own}-{count}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory of ours");
        Self(dir)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // A browser that is being killed may still write: then some of it stays in the target
        // directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Browser {
    async fn start(chromium: &Path, chromedriver: &Path) -> Self {
        let profile = Profile::new();
        let driver = Process::start(Command::new(chromedriver).arg("--port=0"));
        let port = driver.after("started successfully on port ");
        let port: u16 = port.trim_end_matches('.').parse().expect("a port");
        let options = json!({
            "binary": chromium,
            "args": [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                // The browser ends with the pipe, so that it does not outlive a killed driver.
                "--remote-debugging-pipe",
                format!("--user-data-dir={}", profile.0.display()),
            ],
        });
        let capabilities = Capabilities::from_iter([("goog:chromeOptions".to_owned(), options)]);
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("a browser");
        Self { client, _driver: driver, _profile: profile }
    }

    /// Opens the page in a tab of its own and waits until it is connected.
    async fn open(&self, chat: &Chat, name: &str) -> Tab<'_> {
        let window = self.client.new_window(true).await.expect("a tab").handle;
        let tab = Tab { client: &self.client, window };
        tab.front().await;
        let url = format!("http://{}/?name={name}", chat.address);
        self.client.goto(&url).await.expect("a page");
        tab.until("it is connected", IS_OPEN).await;
        tab
    }
}

const IS_OPEN: &str = "document.getElementById('state').dataset.state === 'open'";

/// The texts of all messages in the log, as an expression of the page.
const SAID: &str = "[...document.querySelectorAll('#log .said > p:not(.problem)')]\
    .map(p => p.textContent)";

/// One tab that shows the chat.
struct Tab<'b> {
    client: &'b fantoccini::Client,
    window: WindowHandle,
}

impl Tab<'_> {
    async fn front(&self) {
        self.client.switch_to_window(self.window.clone()).await.expect("the tab is open");
    }

    /// The value of an expression in the page; `arguments` are in its scope.
    async fn value(&self, expression: &str, arguments: Vec<Value>) -> Value {
        self.front().await;
        let script = format!("return ({expression});");
        let value = self.client.execute(&script, arguments).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Waits until the expression is true in the page.
    async fn until(&self, what: &str, expression: &str) {
        self.until_with(what, expression, vec![]).await;
    }

    async fn until_with(&self, what: &str, expression: &str, arguments: Vec<Value>) {
        let wait = async {
            while self.value(expression, arguments.clone()).await != Value::Bool(true) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let shown = self.value("document.body.innerText", vec![]).await;
            panic!("waited in vain until {what}; the page shows: {shown}");
        }
    }

    async fn click(&self, selector: &str) {
        self.front().await;
        let element = self.client.find(Locator::Css(selector)).await;
        let element = element.unwrap_or_else(|error| panic!("{selector}: {error}"));
        element.click().await.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Types a text as a user does, and presses Enter.
    async fn say(&self, text: &str) {
        self.front().await;
        let field = self.client.find(Locator::Css("#text")).await.expect("the field is there");
        field.send_keys(&format!("{text}\n")).await.expect("the field takes text");
    }

    /// Chooses a connection in the roster, once it is there.
    async fn choose(&self, id: &str) {
        let selector = format!(".person[data-id='{id}']");
        self.until_sees(id).await;
        self.click(&selector).await;
    }

    async fn until_sees(&self, id: &str) {
        let is_there = "document.querySelector(`.person[data-id='${arguments[0]}']`) !== null";
        self.until_with("it sees the other", is_there, vec![id.into()]).await;
    }

    async fn until_noted(&self, note: &str) {
        let is_noted = "[...document.querySelectorAll('#log .note')]\
            .some(note => note.textContent.startsWith(arguments[0]))";
        self.until_with(&format!("{note:?} is noted"), is_noted, vec![note.into()]).await;
    }

    /// Waits until the messages in the log are exactly these.
    async fn until_said(&self, texts: &[&str]) {
        let are_said = format!("JSON.stringify({SAID}) === JSON.stringify(arguments[0])");
        self.until_with(&format!("it shows {texts:?}"), &are_said, vec![json!(texts)]).await;
    }

    async fn until_closed_with(&self, code: u16) {
        let is_closed = "document.getElementById('state').dataset.state === 'closed' \
            && document.getElementById('state').dataset.code === arguments[0] \
            && document.getElementById('state').textContent.includes(arguments[0])";
        let arguments = vec![code.to_string().into()];
        self.until_with(&format!("it shows {code}"), is_closed, arguments).await;
    }

    async fn text(&self, selector: &str) -> String {
        let text =
            self.value("document.querySelector(arguments[0]).textContent", vec![selector.into()]);
        text.await.as_str().expect("a text").to_owned()
    }

    async fn id(&self) -> String {
        self.text("#id").await
    }
}

/// Runs a scenario with a chat and a browser of its own, or says why not.
fn in_a_browser(scenario: impl AsyncFnOnce(&mut Chat, &Browser)) {
    let (chromium, chromedriver) = match (find("chromium"), find("chromedriver")) {
        (Ok(chromium), Ok(chromedriver)) => (chromium, chromedriver),
        (Err(missing), _) | (_, Err(missing)) => {
            let is_required = env::var_os("PEREGRINE_REQUIRE_BROWSER").is_some();
            assert!(!is_required, "a browser is required: {missing}");
            skipped::skip(thread::current().name().unwrap_or_default(), &missing);
            return;
        }
    };
    // One browser at a time: each is many processes.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut chat = Chat::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let whole = async {
        let browser = Browser::start(&chromium, &chromedriver).await;
        scenario(&mut chat, &browser).await;
        browser.client.clone().close().await.expect("the browser ends");
    };
    let limited = async { tokio::time::timeout(LIMIT, whole).await };
    let outcome = runtime.expect("a runtime").block_on(limited);
    assert!(outcome.is_ok(), "the test took longer than {LIMIT:?}");
}

#[test]
fn tabs_see_each_other_join_and_on_which_shard() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let grace = browser.open(chat, "Grace%20H.").await;
        let ids = [ada.id().await, grace.id().await];
        assert_ne!(ids[0], ids[1]);
        for tab in [&ada, &grace] {
            for id in &ids {
                tab.until_sees(id).await;
                let shard = id.parse::<peregrine::ConnectionId>().expect("an id").shard();
                let section = format!(
                    "document.querySelector(`.person[data-id='{id}']`)\
                        .closest('section').querySelector('.shard').textContent"
                );
                assert_eq!(tab.value(&section, vec![]).await, format!("shard {shard}"));
            }
            assert_eq!(tab.text("#total").await, "2");
        }
        ada.until_noted("Grace H. joined on shard").await;
        assert!(ada.text(&format!(".person[data-id='{}']", ids[1])).await.contains("Grace H."));
    });
}

#[test]
fn a_message_to_one_arrives_there_and_nowhere_else() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let grace = browser.open(chat, "Grace").await;
        let linus = browser.open(chat, "Linus").await;
        ada.choose(&grace.id().await).await;
        ada.say("for Grace alone").await;
        grace.until_said(&["for Grace alone"]).await;
        assert_eq!(grace.text("#log .aim").await, "to you");
        // What Ada sends keeps its order: had the first come to Linus, it would stand before this.
        ada.click("#aim-all").await;
        ada.say("for all").await;
        linus.until_said(&["for all"]).await;
        grace.until_said(&["for Grace alone", "for all"]).await;
        ada.until_said(&["for Grace alone", "for all"]).await;
    });
}

#[test]
fn a_message_to_oneself_comes_back_once_and_reaches_nobody_else() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let grace = browser.open(chat, "Grace").await;
        ada.click("#aim-self").await;
        ada.say("a note").await;
        ada.until_said(&["a note"]).await;
        assert_eq!(ada.text("#log .aim").await, "to yourself");
        // One's own entry in the roster is another way to say the same.
        ada.click("#aim-all").await;
        ada.choose(&ada.id().await).await;
        ada.say("another").await;
        ada.until_said(&["a note", "another"]).await;
        ada.click("#aim-all").await;
        ada.say("for all").await;
        grace.until_said(&["for all"]).await;
        ada.until_said(&["a note", "another", "for all"]).await;
    });
}

#[test]
fn a_broadcast_arrives_in_every_tab_once() {
    in_a_browser(async |chat, browser| {
        let tabs = [
            browser.open(chat, "Ada").await,
            browser.open(chat, "Grace").await,
            browser.open(chat, "Linus").await,
        ];
        let mut said = Vec::new();
        for (tab, text) in tabs.iter().zip(["one", "two", "three"]) {
            tab.say(text).await;
            said.push(text);
            for tab in &tabs {
                tab.until_said(&said).await;
            }
        }
    });
}

#[test]
fn a_close_by_the_server_shows_1000_and_the_others_see_the_leave() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let grace = browser.open(chat, "Grace").await;
        let id = ada.id().await;
        grace.until_sees(&id).await;
        ada.click("#close").await;
        ada.until_closed_with(1000).await;
        let notes = "[...document.querySelectorAll('#log .note')].slice(-3)\
            .map(note => note.textContent)";
        let last =
            ["Closing connection", "Goodbye, Ada", "Connection closed: a normal end (code 1000)."];
        assert_eq!(ada.value(notes, vec![]).await, json!(last));
        grace.until_noted("Ada left: a normal end (code 1000, by the chat).").await;
        let is_alone = "document.querySelectorAll('.person').length === 1 \
            && document.getElementById('total').textContent === '1'";
        grace.until("the roster is its own", is_alone).await;
    });
}

#[test]
fn a_tab_that_reconnects_has_a_new_id_and_the_old_one_reaches_nobody() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let grace = browser.open(chat, "Grace").await;
        let old = ada.id().await;
        grace.choose(&old).await;
        ada.click("#close").await;
        ada.until_closed_with(1000).await;
        ada.click("#reconnect").await;
        ada.until("it is connected again", IS_OPEN).await;
        let new = ada.id().await;
        assert_ne!(old, new);
        grace.until_sees(&new).await;
        // Grace's choice still is the connection that has gone: she is told so.
        grace.say("too late").await;
        let is_told = "document.querySelector('#log .failed .problem')?.textContent \
            === 'Not delivered: the connection is gone.'";
        grace.until("the sender is told", is_told).await;
        grace.choose(&new).await;
        grace.say("welcome back").await;
        ada.until_said(&["welcome back"]).await;
    });
}

#[test]
fn a_tab_that_lost_its_connection_comes_back_by_itself() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let grace = browser.open(chat, "Grace").await;
        let old = ada.id().await;
        let closed = ada.value("socket.close(4001, 'a test')", vec![]).await;
        assert_eq!(closed, Value::Null);
        grace.until_noted("Ada left: a code of its own (code 4001, by the other side).").await;
        ada.until("it is connected again", &format!("{IS_OPEN} && me.id !== '{old}'")).await;
        ada.until_noted("Connection closed: a code of its own (code 4001").await;
        grace.until_sees(&ada.id().await).await;
    });
}

#[test]
fn what_a_user_types_is_never_a_command_nor_markup() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "%3Cb%3EAda%3C%2Fb%3E").await;
        let grace = browser.open(chat, "Grace").await;
        ada.until_sees(&grace.id().await).await;
        let typed = ["close", "<img src=x onerror=close()>", r#""}],"\u0041\"#, "all 1 x"];
        for text in typed {
            ada.say(text).await;
        }
        // What a keyboard has no keys for.
        let pasted = "two\nlines\u{1}\u{7f}\u{2028}\u{feff}\u{202e}🦅</script>";
        let paste = "document.getElementById('text').value = arguments[0]";
        ada.value(paste, vec![pasted.into()]).await;
        ada.click("#send").await;
        let said: Vec<_> = typed.into_iter().chain([pasted]).collect();
        for tab in [&ada, &grace] {
            tab.until_said(&said).await;
            let foreign = "document.querySelectorAll('img, #log b, #roster b, main script').length";
            assert_eq!(tab.value(foreign, vec![]).await, 0);
            assert_eq!(tab.value(IS_OPEN, vec![]).await, true);
        }
        let from = grace.text("#log .head bdi").await;
        assert_eq!(from, "<b>Ada</b>");
    });
}

#[test]
fn the_page_measures_round_trips_and_messages_per_second() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let is_measured = "/^[0-9.]+ ms$/.test(document.getElementById('rtt').textContent)";
        ada.until("a round trip is measured", is_measured).await;
        ada.click("#burst").await;
        ada.until_noted("1000 pings answered in").await;
        for direction in ["received", "sent"] {
            let count = format!("Number(document.getElementById('{direction}').textContent) > 0");
            ada.until(&format!("what was {direction} is counted"), &count).await;
        }
    });
}

#[test]
fn sigterm_closes_every_tab_with_1001_and_the_server_reports() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let grace = browser.open(chat, "Grace").await;
        chat.process.signal(Signal::TERM);
        let (status, lines) = chat.process.end(PATIENCE);
        assert!(status.success(), "{status}");
        let report = "Shut down: 2 connections were open, 0 had to be dropped.";
        assert_eq!(lines.last().map(String::as_str), Some(report));
        for tab in [&ada, &grace] {
            tab.until_noted("Connection closed: the server is stopping (code 1001").await;
            // It goes on saying so while it tries in vain to come back.
            tab.until("it has tried again", "attempt > 1").await;
            tab.until_closed_with(1001).await;
        }
    });
}

#[test]
fn the_wire_carries_every_text_as_it_is_and_refuses_what_is_no_command() {
    let chat = Chat::start();
    let mut client = Client::connect(chat.address, "/web_socket?name=%22%5C%00%0AAda");
    let mut event = |line: Option<&str>| -> Value {
        if let Some(line) = line {
            client.send(line);
        }
        serde_json::from_str(&client.text()).expect("JSON")
    };
    let welcome = event(None);
    assert_eq!((&welcome["type"], &welcome["name"]), (&json!("welcome"), &json!("\"\\Ada")));
    assert_eq!(welcome["members"].as_array().map(Vec::len), Some(1));
    let own = welcome["id"].as_str().expect("an id");
    let every: String = ('\0'..='\u{ff}').chain(['\u{2028}', '\u{d7ff}', '🦅']).collect();
    for line in ["all 7 ".to_owned(), "self 7 ".to_owned(), format!("to 7 {own} ")] {
        let message = event(Some(&format!("{line}{every}")));
        assert_eq!((&message["type"], &message["text"]), (&json!("message"), &json!(every)));
        assert_eq!((&message["id"], &message["ref"]), (&json!(own), &json!(7)));
    }
    let too_long = format!("all 1 {}", "x".repeat(4096));
    let stranger = "to 1 b1946ac9-2f1d-8003-8000-0040000007c2 hello";
    for line in ["", "All 1 x", "all x", "to 1 nobody x", "to 1", &too_long, stranger] {
        assert_eq!(event(Some(line))["type"], "failed", "{line}");
    }
    assert_eq!(event(Some("ping \"1"))["nonce"], "\"1");
}

#[test]
fn an_argument_that_is_not_understood_ends_with_exit_code_2() {
    for arguments in [&["--nonsense"][..], &["--addr"], &["--shards", "0"], &["8080"]] {
        let (status, lines) =
            Process::start(process::example("chat").args(arguments).stderr(Stdio::null()))
                .end(PATIENCE);
        assert_eq!((status.code(), lines), (Some(2), vec![]), "{arguments:?}");
    }
    let (status, lines) = Process::start(process::example("chat").arg("--help")).end(PATIENCE);
    assert!(status.success() && lines.iter().any(|line| line.contains("--shards N")));
}
