//! Policies and hosts made of bytes. It keeps what it asked for in its own words, for the rules to look for.

use std::collections::BTreeMap;

use ringfence::host::{Features, IdExtent, IdMap, MountTable};
use ringfence::{
    Access, Builder, Capabilities, FileItem, Host, IdRange, Init, Launch, Mapping, Mount, MountKind,
    NamespaceSets, Namespaces, ProcMount, ProcRung, Resource, Root, Sandbox, Source, Submounts, TimeOffsets,
    Tmpfs, prefer,
};

use super::dice::Dice;
use super::tree::SUBMOUNTS;

/// What the bytes are spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Everything that a policy and a host can be.
    Everything,
    /// The mount tree: odd paths, many items, items over one another.
    Mounts,
}

/// One item of the mount tree as it was asked for.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one coin that was thrown")]
pub(crate) struct Item {
    pub(crate) mount: Mount,
    /// The text of its target.
    pub(crate) target: String,
    pub(crate) over: bool,
    pub(crate) required: bool,
}

/// A policy and a host, and the words in which they were asked for.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one coin that was thrown")]
pub(crate) struct Spec {
    pub(crate) builder: Builder,
    pub(crate) host: Host,
    pub(crate) items: Vec<Item>,
    pub(crate) keep: u64,
    /// Required limits: the kernel's number, and the name.
    pub(crate) limits: BTreeMap<u32, u64>,
    pub(crate) nice: Option<i32>,
    pub(crate) hostname: Option<String>,
    pub(crate) umask: Option<u32>,
    pub(crate) offsets: Option<TimeOffsets>,
    pub(crate) shares_session: bool,
    pub(crate) empty_root: bool,
    pub(crate) writable_root: bool,
    pub(crate) init: bool,
    /// Which of the sources are absent, files or symlinks.
    pub(crate) found: Vec<u8>,
    /// Calls that fail.
    pub(crate) faults: Vec<(u16, i32)>,
}

const ERRNOS: [i32; 11] = [
    libc::EPERM,
    libc::EACCES,
    libc::EINVAL,
    libc::ENOMEM,
    libc::EMFILE,
    libc::ENOSPC,
    libc::ENOSYS,
    libc::EAGAIN,
    libc::EIO,
    libc::EBUSY,
    libc::ENOENT,
];

const PLAIN: [&str; 12] =
    ["/a", "/b", "/usr", "/proc", "/dev", "/tmp", "/null", "/etc", "/a/b", "/usr/lib", "/srv", "/x/y/z"];
const ODD: [&str; 14] =
    ["/..", "//", "/.", "/a/", "/a//b", "/./a", "x", "", "/\u{e9}", "/ ", "/a b", "/-", "/../a", "/a\0b"];

fn path(dice: &mut Dice<'_>, about: About) -> String {
    let count = 1 + dice.below(3);
    let mut text = String::new();
    for _ in 0..count {
        let odd = about == About::Mounts && dice.one_in(6);
        text.push_str(if odd { dice.pick(&ODD) } else { dice.pick(&PLAIN) });
    }
    if about == About::Mounts && dice.one_in(64) {
        text.push_str(&format!("/{}", "n".repeat(if dice.coin() { 255 } else { 256 })));
    }
    text
}

fn kind(dice: &mut Dice<'_>, about: About, target: &str) -> Mount {
    let access = if dice.coin() { Access::ReadWrite } else { Access::ReadOnly };
    match dice.below(11) {
        0 => {
            let mount = Mount::bind(path(dice, about), target).access(access);
            if dice.coin() { mount.submounts(Submounts::Exclude) } else { mount }
        }
        1 => Mount::bind(path(dice, about), target).mirror().access(access),
        2 => Mount::bind(path(dice, about), target).if_exists().no_exec(),
        3 => {
            let (size, mode) = (dice.below(1 << 40), dice.half() & 0o7777);
            Mount::tmpfs(target, Tmpfs { size, mode, ..Tmpfs::default() })
        }
        4 => Mount::new(target, MountKind::Directory(dice.half() & 0o7777)),
        5 => Mount::new(target, MountKind::Symlink(path(dice, About::Everything).into())),
        6 => Mount::new(target, MountKind::Device),
        7 => Mount::new(target, MountKind::Dev),
        8 => {
            let rungs = [ProcRung::Fresh, ProcRung::FreshPidSubset, ProcRung::HostReadOnly, ProcRung::Absent];
            let count = if dice.one_in(8) { 0 } else { 1 + dice.below(3) };
            let ladder = (0..count).map(|_| dice.pick(&rungs)).collect();
            Mount::new(target, MountKind::Proc(ProcMount { ladder }))
        }
        9 => {
            let contents = dice.take(usize::from(dice.clone().byte() % 9)).to_vec();
            Mount::new(target, MountKind::File(FileItem { contents, mode: 0o444 }))
        }
        _ => Mount::new(target, MountKind::Mask),
    }
}

fn item(dice: &mut Dice<'_>, about: About) -> Item {
    let target = path(dice, about);
    let mut mount = kind(dice, about, &target);
    let (over, required) = (dice.one_in(3), !dice.one_in(2));
    if over {
        mount = mount.over();
    }
    if !required {
        mount = mount.preferred();
    }
    Item { mount, target, over, required }
}

fn ranges(dice: &mut Dice<'_>) -> Vec<IdRange> {
    let count = dice.below(3);
    let number = |dice: &mut Dice<'_>| if dice.coin() { dice.half() } else { dice.half() % 3000 };
    (0..count).map(|_| IdRange { inside: number(dice), outside: number(dice), count: number(dice) }).collect()
}

fn mapping(dice: &mut Dice<'_>) -> Mapping {
    match dice.below(8) {
        1 => Mapping::KeepHostRoot,
        2 => Mapping::Host { uid: dice.half(), gid: dice.half() },
        3 => Mapping::Ranges { uids: ranges(dice), gids: ranges(dice) },
        _ => Mapping::Own,
    }
}

fn sets(dice: &mut Dice<'_>) -> Option<NamespaceSets> {
    let count = dice.below(3);
    let mut sets = Vec::new();
    for _ in 0..count {
        let set = Namespaces::from_bits_truncate(dice.half());
        let whole = dice.coin();
        let set = if whole {
            Namespaces::STANDARD.difference(set & (Namespaces::NET | Namespaces::UTS))
        } else {
            set
        };
        sets.push(if dice.one_in(8) { set } else { set.difference(Namespaces::TIME) });
    }
    (count > 0).then(|| NamespaceSets::new(sets))
}

const LIMITS: [(Resource, u32); 6] = [
    (Resource::OpenFiles, libc::RLIMIT_NOFILE),
    (Resource::Stack, libc::RLIMIT_STACK),
    (Resource::AddressSpace, libc::RLIMIT_AS),
    (Resource::Processes, libc::RLIMIT_NPROC),
    (Resource::FileSize, libc::RLIMIT_FSIZE),
    (Resource::CpuTime, libc::RLIMIT_CPU),
];

/// A root file system with a writable /proc that nothing hides, and mounts below directories that policies take.
fn mounts() -> MountTable {
    let mut text = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned();
    for (number, path) in (40..).zip(SUBMOUNTS) {
        let kind = if path == "/proc" { "proc" } else { "tmpfs" };
        text.push_str(&format!("{number} 22 0:{number} / {path} rw,nosuid - {kind} {kind} rw\n"));
    }
    MountTable::parse(&text)
}

impl Spec {
    pub(crate) fn read(dice: &mut Dice<'_>, about: About) -> Self {
        let mut spec = Self {
            builder: Sandbox::builder().launch(Launch::Copy),
            host: Host::ideal(),
            items: Vec::new(),
            keep: 0,
            // No core dumps, unless the policy says otherwise.
            limits: BTreeMap::from([(libc::RLIMIT_CORE, 0)]),
            nice: None,
            hostname: None,
            umask: None,
            offsets: None,
            shares_session: false,
            empty_root: true,
            writable_root: false,
            init: true,
            found: Vec::new(),
            faults: Vec::new(),
        };
        spec.host(dice);
        if about == About::Everything {
            spec.options(dice);
        }
        let most = if about == About::Mounts { 10 } else { 7 };
        for _ in 0..dice.below(most) {
            let item = item(dice, about);
            spec.builder = spec.builder.mount(item.mount.clone());
            spec.items.push(item);
        }
        spec.found = dice.take(32).to_vec();
        for _ in 0..dice.below(5) {
            let at = u16::from_le_bytes([dice.byte(), dice.byte()]);
            spec.faults.push((at, dice.pick(&ERRNOS)));
        }
        spec
    }

    fn set(&mut self, change: impl FnOnce(Builder) -> Builder) {
        self.builder = change(self.builder.clone());
    }

    fn options(&mut self, dice: &mut Dice<'_>) {
        let (map, sets) = (mapping(dice), sets(dice));
        self.set(|builder| builder.mapping(map));
        if let Some(sets) = sets {
            self.set(|builder| builder.namespaces(sets));
        }
        if dice.one_in(3) {
            self.set(Builder::system_read_only);
        }
        self.root(dice);
        if dice.coin() {
            self.keep = dice.word() & dice.word() & ((1 << 41) - 1);
            let keep = Capabilities::from_bits(self.keep);
            self.set(|builder| builder.capabilities(keep));
        }
        for _ in 0..dice.below(4) {
            let ((resource, number), value) = (dice.pick(&LIMITS), dice.word());
            if dice.coin() {
                self.set(|builder| builder.limit(resource, prefer(value)));
                self.limits.remove(&number);
            } else {
                self.set(|builder| builder.limit(resource, value));
                self.limits.insert(number, value);
            }
        }
        if dice.coin() {
            let (uid, gid) = (dice.half() % 3000, dice.half() % 3000);
            self.set(|builder| builder.ids(uid, gid));
        }
        self.process(dice);
    }

    fn root(&mut self, dice: &mut Dice<'_>) {
        if dice.one_in(8) {
            (self.empty_root, self.writable_root) = (false, dice.coin());
            let access = if self.writable_root { Access::ReadWrite } else { Access::ReadOnly };
            self.set(|builder| builder.root_directory("/srv/root", access));
        } else if dice.one_in(8) {
            self.writable_root = true;
            let tmpfs = Tmpfs { size: 1 << 20, ..Tmpfs::default() };
            self.set(|builder| builder.root(Root::Empty { tmpfs, access: Access::ReadWrite }));
        }
    }

    fn process(&mut self, dice: &mut Dice<'_>) {
        if dice.one_in(3) {
            let nice = i32::from(dice.byte() % 40) - 20;
            (self.nice, self.builder) = (Some(nice), self.builder.clone().nice(nice));
        }
        if dice.one_in(3) {
            let name = format!("host-{}", dice.byte());
            self.set(|builder| builder.hostname(name.clone()));
            self.hostname = Some(name);
        }
        if dice.one_in(3) {
            let mask = dice.half() & 0o777;
            (self.umask, self.builder) = (Some(mask), self.builder.clone().umask(mask));
        }
        if dice.one_in(6) {
            let offsets =
                TimeOffsets { monotonic: i64::from(dice.byte()), boottime: -i64::from(dice.byte()) };
            (self.offsets, self.builder) = (Some(offsets), self.builder.clone().time_offsets(offsets));
        }
        if dice.one_in(4) {
            (self.init, self.builder) = (false, self.builder.clone().init(Init::Program));
        }
        if dice.one_in(4) {
            (self.shares_session, self.builder) = (true, self.builder.clone().share_session());
        }
    }

    fn host(&mut self, dice: &mut Dice<'_>) {
        let mut host = Host::ideal().with_mounts(Some(mounts()));
        if dice.coin() {
            host = host.with_root();
        }
        if dice.coin() {
            host = host.without_features(Features::from_bits_truncate(dice.half() & dice.half()));
        }
        if dice.one_in(6) {
            host = host.with_last_capability(u32::from(dice.byte() % 64));
        }
        if dice.one_in(8) {
            host = host.with_namespace_flags(Some(u64::from(dice.half())));
        }
        if dice.one_in(8) {
            host = host.with_mounts(None);
        }
        if dice.one_in(6) {
            let extent = |range: IdRange| IdExtent {
                inside: range.inside,
                outside: range.outside,
                count: range.count,
            };
            let mut map = || IdMap::new(ranges(dice).into_iter().map(extent));
            host = host.with_id_maps(Some(map()), Some(map()));
        }
        self.host = host;
    }
}

/// How a source is named in errors.
pub(crate) fn source_name(source: &Source) -> String {
    match source {
        Source::Path(path) => path.display().to_string(),
        Source::Fd(_) => "a descriptor".to_owned(),
    }
}
