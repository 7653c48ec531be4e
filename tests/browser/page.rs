//! What the page shows to a new user, and what it promises of its fields and buttons.

use fantoccini::Locator;
use serde_json::json;

use super::{Tab, in_a_browser};

/// Puts a text into the field as a paste does.
const PASTE: &str = "(document.getElementById('text').value = arguments[0], \
    document.getElementById('text').dispatchEvent(new Event('input')))";

const IS_COUNT_SHOWN: &str = "!document.getElementById('count').hidden";

impl Tab<'_> {
    /// Shows the page as narrow as on a phone.
    async fn narrow(&self) {
        self.front().await;
        self.client.set_window_size(390, 844).await.expect("a size");
        assert_eq!(self.value("innerWidth <= 760", vec![]).await, true);
        // A window of Chromium has at least 500 pixels: the body gets the width of a phone.
        self.value("document.body.style.width = '390px'", vec![]).await;
    }
}

#[test]
fn an_empty_log_says_what_to_try_until_the_first_message() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let hint = ada.text("#hint").await;
        for part in ["Open a second tab", "the kernel chooses", "Choose a name"] {
            assert!(hint.contains(part), "{hint}");
        }
        let link = "document.querySelector('#hint a').target === '_blank' \
            && document.querySelector('#hint a').pathname === '/'";
        assert_eq!(ada.value(link, vec![]).await, true);
        ada.say("first").await;
        ada.until_said(&["first"]).await;
        assert_eq!(ada.value("document.getElementById('hint')", vec![]).await, json!(null));
    });
}

#[test]
fn the_name_has_a_label_and_a_button_that_changes_it() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        assert!(ada.text("label[for=name]").await.starts_with("Your name"));
        assert!(ada.text("#rename").await == "Change");
        let border = "getComputedStyle(document.getElementById('name')).borderTopColor";
        assert_ne!(ada.value(border, vec![]).await, "rgba(0, 0, 0, 0)");
        ada.value("document.getElementById('name').value = 'Lovelace'", vec![]).await;
        ada.click("#rename").await;
        ada.until("the name is new", "me?.name === 'Lovelace'").await;
    });
}

#[test]
fn the_page_says_how_to_write_to_one_person() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let grace = browser.open(chat, "Grace").await;
        assert_eq!(ada.text("#aim-hint").await, "or choose a name");
        assert!(ada.text("#people small").await.contains("write to that person alone"));
        ada.choose(&grace.id().await).await;
        let is_chosen = "!document.getElementById('aim-one').hidden \
            && document.getElementById('aim-hint').hidden";
        ada.until("the person stands beside the field", is_chosen).await;
        assert!(ada.text("#aim-one").await.starts_with("Grace "));
    });
}

#[test]
fn a_text_over_the_limit_is_refused_with_words_and_never_cut() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        ada.value(PASTE, vec!["x".repeat(899).into()]).await;
        assert_eq!(ada.value(IS_COUNT_SHOWN, vec![]).await, false);
        ada.value(PASTE, vec!["x".repeat(900).into()]).await;
        assert_eq!(ada.value(IS_COUNT_SHOWN, vec![]).await, true);
        assert_eq!(ada.text("#count").await, "900 of 1000 characters");
        ada.value(PASTE, vec!["x".repeat(1001).into()]).await;
        ada.click("#send").await;
        let count = ada.text("#count").await;
        assert_eq!(count, "Too long by 1: a message has at most 1000 characters. It is not sent.");
        let length = "document.getElementById('text').value.length";
        assert_eq!(ada.value(length, vec![]).await, 1001);
        // A whole text at the limit goes. Nothing of the refused one stands before it.
        let longest = "y".repeat(1000);
        ada.value(PASTE, vec![longest.as_str().into()]).await;
        ada.click("#send").await;
        ada.until_said(&[&longest]).await;
        assert_eq!(ada.value(IS_COUNT_SHOWN, vec![]).await, false);
    });
}

#[test]
fn the_chart_has_a_unit_and_a_scale() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let has_scale = "/^[0-9]+ ms$/.test(document.getElementById('scale-top').textContent) \
            && Number.parseFloat(document.getElementById('scale-top').textContent) \
                >= Math.max(...trips)";
        ada.until("the scale holds every measured value", has_scale).await;
        assert!(ada.text("#chart figcaption").await.contains("ms"));
        assert!(ada.text("#chart").await.contains("now"));
    });
}

#[test]
fn the_line_of_the_pings_says_that_it_measures_the_browser() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        ada.click("#burst").await;
        ada.until_noted("1000 pings answered in").await;
        let says = "[...document.querySelectorAll('#log .note')]\
            .some(note => note.textContent.includes('measures the browser'))";
        assert_eq!(ada.value(says, vec![]).await, true);
    });
}

#[test]
fn on_a_phone_every_target_is_44_pixels_and_the_brand_stays_when_closed() {
    in_a_browser(async |chat, browser| {
        let ada = browser.open(chat, "Ada").await;
        let grace = browser.open(chat, "Grace").await;
        ada.narrow().await;
        ada.choose(&grace.id().await).await;
        // As the page is while it is connected, and while it is not.
        let small = "[...document.querySelectorAll('button, input, textarea, a')]\
            .filter(target => target.offsetParent !== null)\
            .filter(target => target.getBoundingClientRect().height < 44 \
                || target.getBoundingClientRect().width < 44)\
            .map(target => target.id || target.textContent)";
        assert_eq!(ada.value(small, vec![]).await, json!([]));
        ada.click("#close").await;
        ada.until_closed_with(1000).await;
        assert_eq!(ada.value(small, vec![]).await, json!([]));
        ada.client.find(Locator::Css("#reconnect")).await.expect("the button is there");
        let is_whole = "(([brand, state]) => brand.width > 60 && brand.left >= 0 \
            && state.right <= 390 && state.top >= brand.bottom)\
            (['h1', '#state'].map(part => document.querySelector(part).getBoundingClientRect()))";
        assert_eq!(ada.value(is_whole, vec![]).await, true);
    });
}
