//! A browser-like broker: a fork server that is started before anything else, and for each page a worker that turns it into
//! lines of text. Pages come by descriptor, results go back in a memory file; a page may crash its worker, or hang it.
//!
//! ```text
//! cargo run --example renderer -- page.html other.html
//! cargo run --example renderer
//! ```
//!
//! Without arguments it renders pages of its own, two of which attack: `crash` and `hang`.
#![expect(clippy::print_stdout, reason = "an example prints what happened")]

use std::env;
use std::error::Error;
use std::fs::File;
use std::hint::spin_loop;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::process::{ExitCode, abort};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use ringfence::{Filter, ForkServer, Sandbox, Verdict, WorkerIo};

/// What a page may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a page, and of what comes of it: the worker is not believed.
const PAGE_MAX: u64 = 1 << 20;
const TEXT_MAX: u64 = 1 << 20;

type Failure = Box<dyn Error>;

fn main() -> Result<ExitCode, Failure> {
    // First: the workers are copies of what this process is now, with one thread and no secrets.
    let sandbox = Sandbox::builder().seccomp(Filter::worker()).wall_time(PATIENCE).build()?;
    let server = sandbox.fork_server().function("render", render).start()?;
    println!("fork server {} is confined; workers: {:?}", server.child().id(), server.isolation());
    let pages = pages()?;
    let mut lost = 0;
    // From here on there may be threads: one a page, as in a browser.
    thread::scope(|scope| -> Result<(), Failure> {
        let tabs: Vec<_> =
            pages.iter().map(|(name, page)| (name, scope.spawn(|| tab(&server, page)))).collect();
        for (name, tab) in tabs {
            match tab.join().map_err(|_| "a tab's thread panicked")? {
                Ok(Tab::Text(text, time)) => {
                    println!("{name}: {} lines in {time:.1?}\n{text}", text.lines().count());
                }
                Ok(Tab::Lost(verdict)) => {
                    lost += 1;
                    println!("{name}: the tab crashed: {verdict}");
                }
                Err(error) => return Err(format!("{name}: {error}").into()),
            }
        }
        Ok(())
    })?;
    println!("{} pages, {lost} lost; the server still serves: {}", pages.len(), serves(&server));
    Ok(ExitCode::SUCCESS)
}

/// What has come of a page.
enum Tab {
    Text(String, Duration),
    Lost(Verdict),
}

/// One page in a worker of its own.
fn tab(server: &ForkServer, page: &OwnedFd) -> Result<Tab, String> {
    let begun = Instant::now();
    let text = |error: &dyn Error| error.to_string();
    let result = memory("result").map_err(|error| text(&error))?;
    let given = |fd: &OwnedFd| fd.try_clone().map_err(|error| error.to_string());
    let mut worker = server.worker("render");
    worker.arguments(80_u32.to_le_bytes()).fd(given(page)?).fd(given(&result)?);
    let outcome = worker.spawn().and_then(|child| child.wait()).map_err(|error| text(&error))?;
    if outcome.verdict() != Verdict::Exited(0) {
        return Ok(Tab::Lost(outcome.verdict()));
    }
    // It has ended, so nothing changes any more. What it wrote is bytes of any sort.
    let mut bytes = Vec::new();
    let mut file = File::from(result);
    file.seek(SeekFrom::Start(0)).map_err(|error| text(&error))?;
    file.take(TEXT_MAX).read_to_end(&mut bytes).map_err(|error| text(&error))?;
    let clean = |c: char| if c.is_control() && c != '\n' { '?' } else { c };
    Ok(Tab::Text(String::from_utf8_lossy(&bytes).chars().map(clean).collect(), begun.elapsed()))
}

/// The worker: it has a page, a place for the result, and a width. It can compute and nothing else.
fn render(io: &mut WorkerIo) -> i32 {
    let width = io.arguments.as_slice().try_into().map_or(80, u32::from_le_bytes);
    let (Some(result), Some(page)) = (io.fds.pop(), io.fds.pop()) else { return 2 };
    let mut html = String::new();
    if File::from(page).take(PAGE_MAX).read_to_string(&mut html).is_err() {
        return 3;
    }
    let text = lay_out(&html, usize::try_from(width).unwrap_or(80));
    i32::from(File::from(result).write_all(text.as_bytes()).is_err())
}

/// Text without its tags, in lines of that width. It has two faults that pages can make use of.
fn lay_out(html: &str, width: usize) -> String {
    let mut words = String::new();
    for piece in html.split('<') {
        let (tag, rest) = piece.split_once('>').unwrap_or(("", piece));
        match tag {
            // The faults.
            "crash" => abort(),
            "hang" => loop {
                spin_loop();
            },
            _ => words.push_str(rest),
        }
        words.push(' ');
    }
    let (mut lines, mut line) = (String::new(), String::new());
    for word in words.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push_str(&line);
            lines.push('\n');
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &line + "\n"
}

/// Named files, or pages of its own.
fn pages() -> Result<Vec<(String, OwnedFd)>, Failure> {
    let files: Vec<String> = env::args().skip(1).collect();
    if !files.is_empty() {
        return files.into_iter().map(|name| Ok((name.clone(), File::open(name)?.into()))).collect();
    }
    let own = [
        ("news", "<h1>News</h1><p>A fence was <b>built</b> early, and held.</p>"),
        ("evil", "<p>before</p><crash>"),
        ("slow", "<p>before</p><hang>"),
        ("long", &"<p>word</p>".repeat(40)),
    ];
    own.into_iter().map(|(name, html)| Ok((name.to_owned(), filled(html)?))).collect()
}

fn memory(name: &str) -> nix::Result<OwnedFd> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC)
}

fn filled(html: &str) -> Result<OwnedFd, Failure> {
    let mut file = File::from(memory("page")?);
    file.write_all(html.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

fn serves(server: &ForkServer) -> &'static str {
    let page = filled("<p>again</p>").ok();
    match page.and_then(|page| tab(server, &page).ok()) {
        Some(Tab::Text(text, _)) if text == "again\n" => "yes",
        Some(_) | None => "no",
    }
}
