//! Parses /proc/PID/uid_map and gid_map and answers which ids a user namespace knows. It must not write a map.

/// One line of an id map: `count` ids from `inside` on are those from `outside` on in the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdExtent {
    /// The first id in the user namespace.
    pub inside: u32,
    /// The first id in the parent user namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The map between the ids of a user namespace and those of its parent, see user_namespaces(7).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct IdMap {
    extents: Vec<IdExtent>,
}

impl IdMap {
    /// The map of the initial user namespace: every id is itself (4294967295 is no id but "unchanged").
    #[must_use]
    pub fn identity() -> Self {
        Self::new([IdExtent { inside: 0, outside: 0, count: u32::MAX }])
    }

    /// Makes a map of its extents.
    #[must_use]
    pub fn new(extents: impl IntoIterator<Item = IdExtent>) -> Self {
        Self { extents: extents.into_iter().collect() }
    }

    /// Reads the text of a map; `None` if any line is not three numbers or leaves the range of ids, for half a map
    /// would be a wrong one. An empty text is the map of a user namespace that none was written for.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(extent)
            .collect::<Option<Vec<_>>>()
            .map(Self::new)
    }

    /// Its extents, in the order of the file.
    #[must_use]
    pub fn extents(&self) -> &[IdExtent] {
        &self.extents
    }

    /// Whether every id is mapped to itself, as in the initial user namespace.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.extents.iter().all(|extent| extent.inside == extent.outside)
            && self.count() == u64::from(u32::MAX)
    }

    /// How many ids the user namespace knows.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.count)).sum()
    }

    /// Whether `id` exists in the user namespace. One that does not shows as the overflow id (65534).
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.to_parent(id).is_some()
    }

    /// What `id` is called in the parent user namespace.
    #[must_use]
    pub fn to_parent(&self, id: u32) -> Option<u32> {
        self.extents.iter().find_map(|extent| shifted(id, extent.inside, extent.outside, extent.count))
    }

    /// What the parent's `id` is called in the user namespace.
    #[must_use]
    pub fn to_inside(&self, id: u32) -> Option<u32> {
        self.extents.iter().find_map(|extent| shifted(id, extent.outside, extent.inside, extent.count))
    }
}

fn shifted(id: u32, from: u32, to: u32, count: u32) -> Option<u32> {
    let distance = id.checked_sub(from)?;
    if distance < count { to.checked_add(distance) } else { None }
}

fn extent(line: &str) -> Option<IdExtent> {
    let mut words = line.split_ascii_whitespace().map(|word| word.parse::<u32>().ok());
    let (inside, outside, count) = (words.next()??, words.next()??, words.next()??);
    let fits = count > 0 && inside.checked_add(count).is_some() && outside.checked_add(count).is_some();
    if fits && words.next().is_none() { Some(IdExtent { inside, outside, count }) } else { None }
}
