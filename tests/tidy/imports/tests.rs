//! The reader of imports, on small inputs.

use super::*;

/// All leaves of the `use` trees as `path as name`, public ones with `pub`.
fn imports(text: &str) -> Vec<String> {
    let import = |import: &Import| {
        let Import { path, name, is_public, .. } = import;
        let public = if *is_public { "pub " } else { "" };
        format!("{public}{} as {name}", path.join("::"))
    };
    read(text).iter().flat_map(|module| &module.imports).map(import).collect()
}

/// All paths of more than one word.
fn paths(text: &str) -> Vec<String> {
    let modules = read(text);
    let mentions = modules.iter().flat_map(|module| &module.mentions);
    mentions.filter(|mention| mention.path.len() > 1).map(|m| m.path.join("::")).collect()
}

#[test]
fn nested_trees_are_unfolded() {
    let text = "use crate::{a::{self, B}, c::D as E, f::*};\nuse super::super::g;";
    let expected = [
        "crate::a as a",
        "crate::a::B as B",
        "crate::c::D as E",
        "crate::f::* as *",
        "super::super::g as g",
    ];
    // A glob's path is its module's.
    let expected = expected.map(|line| line.replace("::* as", " as"));
    assert_eq!(imports(text), expected);
}

#[test]
fn re_exports_are_told_apart() {
    let text =
        "pub use self::a::A;\npub(crate) use self::b::B;\npub(in crate::x) use c::C;\nuse d::D;";
    let expected = ["pub self::a::A as A", "pub self::b::B as B", "pub c::C as C", "d::D as D"];
    assert_eq!(imports(text), expected);
    assert!(paths(text).is_empty(), "a visibility is no path: {:?}", paths(text));
}

#[test]
fn a_function_may_import_and_a_trait_may_have_no_name() {
    assert_eq!(imports("fn f() { use a::B as _; g(); }"), ["a::B as _"]);
    // This `use` captures a lifetime.
    assert!(imports("fn f<'a>() -> impl T + use<'a> { x }").is_empty());
}

#[test]
fn paths_in_code_and_macros_are_found() {
    let text = "fn f() { crate::a::b::<crate::c::D>(super::e()); m!(self::g::H, $crate::i::J); }";
    let expected = ["crate::a::b", "crate::c::D", "super::e", "self::g::H", "crate::i::J"];
    assert_eq!(paths(text), expected);
    assert_eq!(paths("macro_rules! m { ($x:expr) => { crate::a::b($x) }; }"), ["crate::a::b"]);
}

#[test]
fn comments_and_strings_import_nothing() {
    let text = "/// [`x`](crate::a::B)\n// use c::d;\nconst E: &str = \"use f::g; crate::h::i\";";
    assert!(imports(text).is_empty() && paths(text).is_empty());
}

#[test]
fn what_only_tests_compile_is_left_out() {
    let text = "#[cfg(test)] use a::A;
        #[cfg(all(test, feature = \"x\"))] mod b { use c::C; }
        #[cfg(test)] #[allow(dead_code)] pub(crate) fn d<T, U>(x: e::E) { f::f() }
        struct S { #[cfg(test)] g: h::H, i: j::J }
        fn k() { #[cfg(test)] let x = l::L { m: 1 }; n::n() }
        #[test] fn o() { p::p() }
        #[cfg(test)] mod q;
        #[cfg(not(test))] use r::R;
        #[cfg(any(test, feature = \"x\"))] use s::S;
        #[cfg(not(all(test, loom)))] use t::T;
        #[cfg(not(feature = \"x\"))] use u::U;";
    assert_eq!(imports(text), ["r::R as R", "s::S as S", "t::T as T", "u::U as U"]);
    assert_eq!(paths(text), ["j::J", "n::n"]);
    assert!(read(text).iter().all(|module| module.children.is_empty()));
}

#[test]
fn modules_and_definitions_are_told_apart() {
    let text = "mod a;\n#[path = \"x/c.rs\"] mod b;\nmod d { use super::E; struct F; }
        pub(crate) const fn g() { const H: u8 = 1; } impl I { fn j() {} } static K: u8 = 2;
        macro_rules! l { () => {}; } enum M { N } pub trait O { type P; }";
    let modules = read(text);
    let [own, inline] = &modules[..] else { panic!("{modules:?}") };
    let children = [("a".to_owned(), None), ("b".to_owned(), Some("x/c.rs".to_owned()))];
    assert_eq!(own.children, children);
    assert_eq!(own.definitions, ["g", "K", "l", "M", "O"]);
    assert_eq!(
        (&inline.names[..], &inline.definitions[..]),
        (&["d".to_owned()][..], &["F".to_owned()][..])
    );
    assert_eq!(inline.imports[0].path, ["super", "E"]);
}
