//! Random policies on random hosts: whatever passes the policy's own check compiles or is refused, and never panics.

use super::super::compile;
use super::hosts;
use crate::host::Answer;
use crate::host::Features;
use crate::host::Host;
use crate::host::IdExtent;
use crate::host::IdMap;
use crate::policy::Access;
use crate::policy::Builder;
use crate::policy::Capabilities;
use crate::policy::IdRange;
use crate::policy::Init;
use crate::policy::Mapping;
use crate::policy::Mount;
use crate::policy::MountKind;
use crate::policy::Namespaces;
use crate::policy::ProcMount;
use crate::policy::ProcRung;
use crate::policy::Resource;
use crate::policy::Tmpfs;
use crate::policy::prefer;

/// xorshift64: the same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn word(&mut self) -> u32 {
        u32::try_from(self.next() & 0xffff_ffff).unwrap_or(0)
    }

    fn often(&mut self) -> bool {
        self.below(3) != 0
    }
}

fn path(random: &mut Random) -> String {
    let parts = ["/a", "/b", "/usr", "/proc", "/dev", "/tmp", "/null", "/etc/x", "/é", "/.hidden"];
    let pick = |random: &mut Random| parts[usize::try_from(random.below(10)).unwrap_or(0)];
    (0..=random.below(3)).map(|_| pick(random)).collect()
}

fn mount(random: &mut Random) -> Mount {
    let target = path(random);
    let kind = random.below(9);
    let rungs = [ProcRung::Fresh, ProcRung::FreshPidSubset, ProcRung::HostReadOnly, ProcRung::Absent];
    let mount = match kind {
        0 => Mount::bind(path(random), target),
        1 => Mount::bind(path(random), target).mirror().access(Access::ReadWrite),
        2 => Mount::tmpfs(target, Tmpfs { size: random.next(), mode: random.word(), ..Tmpfs::default() }),
        3 => Mount::new(target, MountKind::Directory(random.word())),
        4 => Mount::new(target, MountKind::Symlink(path(random).into())),
        5 => Mount::new(target, MountKind::Device),
        6 => Mount::new(target, MountKind::Dev),
        7 => {
            let ladder = rungs.into_iter().filter(|_| random.often()).collect();
            Mount::new(target, MountKind::Proc(ProcMount { ladder }))
        }
        _ => Mount::new(target, MountKind::Mask),
    };
    let mount = if random.often() { mount.over() } else { mount };
    if random.often() { mount } else { mount.preferred() }
}

fn mapping(random: &mut Random) -> Mapping {
    let range = |random: &mut Random| IdRange {
        inside: random.word() % 3000,
        outside: random.word(),
        count: random.word() % 5000,
    };
    match random.below(6) {
        0 => Mapping::KeepHostRoot,
        1 => Mapping::Host { uid: random.word(), gid: random.word() },
        2 => Mapping::Ranges { uids: vec![range(random)], gids: vec![range(random), range(random)] },
        _ => Mapping::Own,
    }
}

fn builder(random: &mut Random) -> Builder {
    let set = Namespaces::from_bits_truncate(random.word());
    let set = if random.often() { Namespaces::STANDARD } else { set.difference(Namespaces::TIME) };
    let mut builder = Builder::default().namespaces(set).mapping(mapping(random));
    if random.often() {
        builder = builder.system_read_only();
    }
    for _ in 0..random.below(6) {
        builder = builder.mount(mount(random));
    }
    builder = builder.capabilities(Capabilities::from_bits(random.next() & random.next() & random.next()));
    builder = builder.limit(Resource::OpenFiles, random.next()).limit(Resource::Stack, prefer(random.next()));
    if random.often() {
        builder = builder.ids(random.word() % 3000, random.word() % 3000).nice(prefer(7));
    }
    if random.often() { builder } else { builder.init(Init::Program).share_session() }
}

fn host(random: &mut Random) -> Host {
    let all = hosts::all();
    let index = usize::try_from(random.below(all.len() as u64)).unwrap_or(0);
    let host = all[index].host.clone();
    let host = host.without_features(Features::from_bits_truncate(random.word() & random.word()));
    let host = host.with_last_capability(random.word() % 64).with_setgroups_allowed(Answer::Unknown);
    let map = |random: &mut Random| {
        let extent = IdExtent { inside: random.word(), outside: random.word(), count: random.word() };
        random.often().then(|| IdMap::new([extent]))
    };
    let (uids, gids) = (map(random), map(random));
    if random.often() { host } else { host.with_id_maps(uids, gids) }
}

#[test]
fn random_policies_on_random_hosts_compile_or_are_refused() {
    let mut random = Random(0x5eed_0123_4567_89ab);
    let (mut plans, mut errors, mut mistakes) = (0, 0, 0);
    for _ in 0..3_000 {
        let builder = builder(&mut random);
        let host = host(&mut random);
        let Ok(policy) = builder.policy() else {
            mistakes += 1;
            continue;
        };
        let set = policy.namespaces().sets[0];
        match (compile(&policy, &host, set), compile(&policy, &host, set)) {
            (Ok(plan), Ok(again)) => {
                assert_eq!(plan, again);
                assert!(plan.to_string().lines().count() > plan.len());
                plans += 1;
            }
            (Err(error), Err(_)) => {
                assert!(!format!("{error:#}").is_empty());
                errors += 1;
            }
            _ => panic!("once a plan, once an error"),
        }
    }
    assert!(
        plans > 100 && errors > 20 && mistakes > 20,
        "{plans} plans, {errors} errors, {mistakes} mistakes"
    );
}
