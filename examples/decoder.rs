//! Decodes an untrusted image in a worker that can do nothing else, and takes the pixels from shared memory.
//!
//! ```text
//! cargo run --release --example decoder -- picture.png --out picture.rgba
//! cargo run --release --example decoder -- picture.png --hostile
//! ```
//!
//! The program executes itself as the worker, behind a fence with nothing but the libraries that it is linked to, and in
//! two stages. What loads the libraries needs to open files, so it starts under `Filter::worker_dynamic`; before it looks at
//! the first byte of the image it lowers itself to `Filter::worker`, drops what Landlock can close, and has then the image,
//! the memory for the pixels and a pipe for one line. The caller believes nothing of that line before it is checked.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode};
use std::time::Duration;

use clap::Parser;
use image::{ImageFormat, ImageReader, Limits};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pwrite;
use ringfence::{Filter, Landlock, Lowering, Mount, Resource, Sandbox, Stdio, Verdict};

/// Pixels on a side, at most. What is larger is refused by both sides.
const SIDE_MAX: u32 = 4096;
/// Red, green, blue, alpha.
const PIXEL: usize = 4;
/// Bytes of an image file, at most.
const FILE_MAX: u64 = 64 << 20;
/// Bytes that the worker may say.
const WORDS_MAX: u64 = 4096;
const MEMORY: u64 = 1 << 30;
const TIME: Duration = Duration::from_secs(20);
/// Set in the worker.
const ROLE: &str = "DECODER_ROLE";
/// The loader and the libraries of a dynamic program; a static one needs none.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"];

type Failure = Box<dyn Error>;

/// Decode an untrusted PNG image behind a fence.
#[derive(Parser, Debug)]
#[command(name = "decoder", version)]
struct Args {
    /// The image
    image: PathBuf,
    /// Write the pixels there: 4 bytes each, red, green, blue, alpha
    #[arg(long)]
    out: Option<PathBuf>,
    /// A worker that tries to open a file, to connect and to fork instead, and lies about the size
    #[arg(long)]
    hostile: bool,
}

fn main() -> ExitCode {
    let done = match env::var(ROLE).as_deref() {
        Ok("decode") => worker(decode),
        Ok(_) => worker(misbehave),
        Err(_) => caller(&Args::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even that cannot be written, the code has to do.
            writeln!(io::stderr(), "decoder: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

/// The caller's half.
fn caller(args: &Args) -> Result<(), Failure> {
    let picture = File::open(&args.image)?;
    let pixels = shared_memory()?;
    let mut builder = Sandbox::builder()
        .seccomp(Filter::worker_dynamic().with_lowering())
        .limit(Resource::AddressSpace, MEMORY)
        .limit(Resource::OpenFiles, 64);
    for path in LIBRARIES {
        builder = builder.mount(Mount::bind(path, path).mirror());
    }
    let sandbox = builder.build()?;
    let mut command = sandbox.command("decoder");
    // Executed by its descriptor: the tree inside needs no path to it.
    command.program_fd(File::open("/proc/self/exe")?);
    command.env(ROLE, if args.hostile { "misbehave" } else { "decode" });
    command.stdin(picture).stdout(OwnedFd::from(pixels.try_clone()?)).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let outcome = child.wait_timeout(TIME)?;
    if outcome.is_none() {
        child.kill()?;
    }
    // All that it said is in the pipe: nobody is there any more who could add to it.
    let mut words = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        pipe.take(WORDS_MAX).read_to_end(&mut words)?;
    }
    let words = String::from_utf8_lossy(&words);
    for line in words.lines().filter(|line| !line.starts_with("size ")) {
        writeln!(io::stdout(), "worker: {}", line.escape_debug())?;
    }
    match outcome.map(|outcome| outcome.verdict()) {
        Some(Verdict::Exited(0)) => {}
        Some(verdict) => return Err(format!("no pixels: the worker ended: {verdict}").into()),
        None => return Err("no pixels: the worker took too long and was killed".into()),
    }
    let (width, height) = checked(&words)?;
    let mut bytes = vec![0; area(width, height)];
    // A copy: nobody can change it while it is used.
    pixels.read_exact_at(&mut bytes, 0)?;
    writeln!(io::stdout(), "{width}x{height} pixels, {} bytes", bytes.len())?;
    if let Some(out) = &args.out {
        fs::write(out, bytes)?;
    }
    Ok(())
}

/// Memory for the largest image, of a size that nobody can change any more. Pages that are not written take no space.
fn shared_memory() -> Result<File, Failure> {
    let memory = memfd_create(c"pixels", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let memory = File::from(memory);
    memory.set_len(u64::try_from(area(SIDE_MAX, SIDE_MAX))?)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}

const fn area(width: u32, height: u32) -> usize {
    width as usize * height as usize * PIXEL
}

/// The size that the worker said, if it can be one.
fn checked(words: &str) -> Result<(u32, u32), Failure> {
    let line =
        words.lines().find_map(|line| line.strip_prefix("size ")).ok_or("no pixels: no size was said")?;
    let (width, height) = line.split_once(' ').ok_or("no pixels: half a size was said")?;
    let side = |text: &str| match text.parse::<u32>() {
        Ok(side @ 1..=SIDE_MAX) => Ok(side),
        _ => Err(format!(
            "no pixels: a side of {:?}, 1 to {SIDE_MAX} can be",
            text.chars().take(20).collect::<String>()
        )),
    };
    Ok((side(width)?, side(height)?))
}

/// The worker's half: first it gives up what it does not need any more.
fn worker(work: fn() -> Result<(), Failure>) -> Result<(), Failure> {
    let lowering = Lowering::builder()
        .seccomp(Filter::worker())
        .landlock(Landlock::closed().preferred())
        .drop_capabilities()
        .build()?;
    lowering.apply()?;
    work()
}

fn decode() -> Result<(), Failure> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(FILE_MAX).read_to_end(&mut bytes)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(SIDE_MAX), Some(SIDE_MAX));
    reader.limits(limits);
    let picture = reader.decode()?.into_rgba8();
    let mut rest = picture.as_raw().as_slice();
    let mut at = 0;
    while !rest.is_empty() {
        let written = pwrite(io::stdout(), rest, at)?;
        rest = &rest[written..];
        at += i64::try_from(written)?;
    }
    writeln!(io::stderr(), "size {} {}", picture.width(), picture.height())?;
    Ok(())
}

/// What an attacker would try who has taken over the decoder.
fn misbehave() -> Result<(), Failure> {
    let tell = |what: &str, result: io::Result<()>| {
        let how = match result {
            Ok(()) => "DONE".to_owned(),
            Err(error) => {
                let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
                format!("refused, {errno:?}")
            }
        };
        writeln!(io::stderr(), "{what}: {how}")
    };
    tell("open /etc/passwd", File::open("/etc/passwd").map(drop))?;
    tell("connect 127.0.0.1:80", TcpStream::connect("127.0.0.1:80").map(drop))?;
    tell("fork", Process::new("/bin/true").spawn().map(drop))?;
    writeln!(io::stderr(), "size {0} {0}", u32::MAX)?;
    Ok(())
}
