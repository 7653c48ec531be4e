//! This program once more, under callgrind.
//!
//! What is counted must not depend on the machine, and be what a processor would count. `rep movsb`
//! is one instruction to a processor, and to callgrind one for each byte: so glibc is told
//! (`GLIBC_TUNABLES`) that this processor is bad at it, and copies by vector moves, of which both
//! count the same. From which size on it copies around the cache depends on the cache, and is set
//! beyond all that is copied here. Nothing else is handed down from the environment, which lies on
//! the stack and moves it. Two things remain: valgrind knows AVX2 but no AVX-512, and it does not
//! know the instructions for SHA-1, so that handshakes cost more here than on most processors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TUNABLES: &str =
    "glibc.cpu.hwcaps=-ERMS,-FSRM:glibc.cpu.x86_non_temporal_threshold=0x4000000";

/// Where the profiles stay, for `callgrind_annotate`.
pub(crate) fn profiles() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("budget");
    fs::create_dir_all(&folder).expect("a folder below target");
    folder
}

/// What figures depend on beside the source: name and value.
pub(crate) fn facts() -> Result<Vec<(&'static str, String)>, String> {
    let first_line = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    };
    let valgrind = first_line("valgrind").ok_or(
        "valgrind is missing: the budget counts instructions with it (apt-get install valgrind)",
    )?;
    let rustc = first_line("rustc").unwrap_or_else(|| "unknown".to_owned());
    let libc = first_line("ldd").unwrap_or_else(|| "unknown".to_owned());
    let processor = processor().to_owned();
    Ok(vec![("rustc", rustc), ("libc", libc), ("valgrind", valgrind), ("processor", processor)])
}

/// What a processor offers that libraries look for while they run, and valgrind knows.
fn processor() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx2") { "x86-64 with AVX2" } else { "x86-64" }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}

/// A run of this program, to be counted.
pub(crate) fn command(name: &str, options: &[&str], arguments: &[&str]) -> (Command, PathBuf) {
    let profile = profiles().join(name.replace('/', "-"));
    for old in dumps(&profile) {
        fs::remove_file(old).expect("an old profile goes");
    }
    let mut command = Command::new("valgrind");
    let path = std::env::var_os("PATH").unwrap_or_default();
    command
        .env_clear()
        .env("PATH", path)
        .env("GLIBC_TUNABLES", TUNABLES)
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .args(options)
        .arg(std::env::current_exe().expect("this program"))
        .args(arguments);
    (command, profile)
}

/// The files that a run wrote, in order.
fn dumps(profile: &Path) -> Vec<PathBuf> {
    let numbered = (1..).map(|number| PathBuf::from(format!("{}.{number}", profile.display())));
    numbered
        .take_while(|path| path.exists())
        .chain([profile.to_owned()])
        .filter(|p| p.exists())
        .collect()
}

/// How many instructions each of the files tells of.
pub(crate) fn totals(profile: &Path) -> Vec<u64> {
    let total = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a profile");
        let line = text.lines().find_map(|line| {
            line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))
        });
        let words = line.unwrap_or_else(|| panic!("{} tells no sum", path.display()));
        words.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
    };
    dumps(profile).into_iter().map(total).collect()
}
