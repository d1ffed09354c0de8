//! The optimistic lock: the version of a stored aggregate (the seed's 낙관락).

/// How often a stored aggregate has been written; 1 when it was inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(i64);

impl Version {
    /// The version of a row that was just inserted.
    pub const FIRST: Self = Self(1);

    /// Takes a stored version.
    #[must_use]
    pub const fn new(version: i64) -> Self {
        Self(version)
    }

    /// The number, for adapters.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The version after one more write.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// An aggregate with the version under which it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The aggregate.
    pub value: T,
    /// The version that was loaded. A commit that changes or guards the aggregate checks it.
    pub version: Version,
}

impl<T> Versioned<T> {
    /// Pairs an aggregate with the version under which it was loaded.
    pub const fn new(value: T, version: Version) -> Self {
        Self { value, version }
    }

    /// Takes the aggregate through a transition, keeping the loaded version.
    ///
    /// # Errors
    /// What the transition refuses with.
    pub fn try_map<E>(self, transition: impl FnOnce(T) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { value: transition(self.value)?, version: self.version })
    }
}

/// What a unit of work does with one aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// Stores an aggregate that was absent. One that is there by now is a conflict.
    Insert(T),
    /// Stores a new value over the version that was loaded. Another version is a conflict.
    Update(Versioned<T>),
}

impl<T> Change<T> {
    /// The value to be stored.
    pub const fn value(&self) -> &T {
        match self {
            Self::Insert(value) | Self::Update(Versioned { value, .. }) => value,
        }
    }
}
