//! Policies made of bytes on hosts made of bytes: what the policy's check lets through compiles or is refused.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringfence::host::{Features, IdExtent, IdMap};
use ringfence::{
    Access, Builder, Capabilities, Host, IdRange, Init, Launch, Mapping, Mount, MountKind, Namespaces,
    ProcMount, ProcRung, Resource, Sandbox, TimeOffsets, Tmpfs, prefer,
};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Unstructured::new(bytes);
    let Ok((builder, host)) = both(&mut input) else { return };
    let Ok(policy) = builder.policy() else { return };
    let text = |sandbox: &Sandbox| sandbox.plans().map(ToString::to_string).collect::<Vec<_>>();
    match (Sandbox::new(policy.clone(), host.clone()), Sandbox::new(policy, host)) {
        (Ok(one), Ok(other)) => {
            assert!(one.plans().eq(other.plans()), "equal input gives an equal plan");
            assert_eq!(text(&one), text(&other));
        }
        (Err(one), Err(other)) => assert_eq!(format!("{one:#}"), format!("{other:#}")),
        _ => panic!("once a plan, once an error"),
    }
});

fn both(input: &mut Unstructured<'_>) -> Result<(Builder, Host)> {
    Ok((builder(input)?, host(input)?))
}

fn path(input: &mut Unstructured<'_>) -> Result<String> {
    let parts = ["/a", "/b", "/usr", "/proc", "/dev", "/tmp", "/null", "/etc", "/..", "/\u{e9}", "//", "x"];
    let count = input.int_in_range(1..=4)?;
    (0..count).map(|_| input.choose(&parts).copied()).collect()
}

fn mount(input: &mut Unstructured<'_>) -> Result<Mount> {
    let (target, source) = (path(input)?, path(input)?);
    let access = if input.arbitrary()? { Access::ReadOnly } else { Access::ReadWrite };
    let rungs = [ProcRung::Fresh, ProcRung::FreshPidSubset, ProcRung::HostReadOnly, ProcRung::Absent];
    let mut mount = match input.int_in_range(0..=9)? {
        0 => Mount::bind(source, target).access(access),
        1 => Mount::bind(source, target).mirror().access(access),
        2 => Mount::bind(source, target).if_exists().no_exec(),
        3 => Mount::tmpfs(
            target,
            Tmpfs { size: input.arbitrary()?, mode: input.arbitrary()?, ..Tmpfs::default() },
        ),
        4 => Mount::new(target, MountKind::Directory(input.arbitrary()?)),
        5 => Mount::new(target, MountKind::Symlink(source.into())),
        6 => Mount::new(target, MountKind::Device),
        7 => Mount::new(target, MountKind::Dev),
        8 => {
            let count = input.int_in_range(0..=4)?;
            let ladder = (0..count).map(|_| input.choose(&rungs).copied()).collect::<Result<_>>()?;
            Mount::new(target, MountKind::Proc(ProcMount { ladder }))
        }
        _ => Mount::new(target, MountKind::Mask),
    };
    if input.arbitrary()? {
        mount = mount.over();
    }
    if input.arbitrary()? {
        mount = mount.preferred();
    }
    Ok(mount)
}

fn ranges(input: &mut Unstructured<'_>) -> Result<Vec<IdRange>> {
    let count = input.int_in_range(0..=3)?;
    let range = |input: &mut Unstructured<'_>| {
        Ok(IdRange { inside: input.arbitrary()?, outside: input.arbitrary()?, count: input.arbitrary()? })
    };
    (0..count).map(|_| range(input)).collect()
}

fn mapping(input: &mut Unstructured<'_>) -> Result<Mapping> {
    Ok(match input.int_in_range(0..=3)? {
        0 => Mapping::KeepHostRoot,
        1 => Mapping::Host { uid: input.arbitrary()?, gid: input.arbitrary()? },
        2 => Mapping::Ranges { uids: ranges(input)?, gids: ranges(input)? },
        _ => Mapping::Own,
    })
}

fn builder(input: &mut Unstructured<'_>) -> Result<Builder> {
    let mut sets = Vec::new();
    for _ in 0..input.int_in_range(0..=3)? {
        sets.push(Namespaces::from_bits_truncate(input.arbitrary()?));
    }
    let mut builder = Sandbox::builder().launch(Launch::Copy).mapping(mapping(input)?);
    if !sets.is_empty() {
        builder = builder.namespaces(ringfence::NamespaceSets::new(sets));
    }
    if input.arbitrary()? {
        builder = builder.system_read_only();
    }
    for _ in 0..input.int_in_range(0..=6)? {
        builder = builder.mount(mount(input)?);
    }
    builder = builder.capabilities(Capabilities::from_bits(input.arbitrary()?));
    builder = builder.limit(Resource::OpenFiles, input.arbitrary::<u64>()?);
    builder = builder.limit(Resource::Stack, prefer(input.arbitrary::<u64>()?));
    builder = builder.ids(input.arbitrary()?, input.arbitrary()?).nice(prefer(input.arbitrary()?));
    if input.arbitrary()? {
        builder =
            builder.time_offsets(TimeOffsets { monotonic: input.arbitrary()?, boottime: input.arbitrary()? });
    }
    if input.arbitrary()? {
        builder = builder.init(Init::Program).share_session().hostname(input.arbitrary::<&str>()?);
    }
    Ok(builder)
}

fn host(input: &mut Unstructured<'_>) -> Result<Host> {
    let mut host = Host::ideal().with_last_capability(input.arbitrary()?);
    if input.arbitrary()? {
        host = host.with_root();
    }
    host = host.without_features(Features::from_bits_truncate(input.arbitrary()?));
    if input.arbitrary()? {
        host = host.with_namespace_flags(input.arbitrary()?);
    }
    if input.arbitrary()? {
        let mut map = || -> Result<IdMap> {
            let extent = |range: IdRange| IdExtent {
                inside: range.inside,
                outside: range.outside,
                count: range.count,
            };
            Ok(IdMap::new(ranges(input)?.into_iter().map(extent)))
        };
        host = host.with_id_maps(Some(map()?), Some(map()?));
    }
    Ok(host)
}
