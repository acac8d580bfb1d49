//! A disk in memory that can fail at any operation, and lose its power after any: what was not synced then survives in part, torn and out of
//! order. For tests.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, Handle, ReadAt};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// One machine's disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Simulated(Arc<Mutex<World>>);

/// Operations that fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The first one, counted from 0.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// With which `errno`. `ENOSPC` (28) is no matter for what needs no space.
    pub errno: i32,
}

/// Chooses what becomes of what was not synced: a number for each call.
pub trait Chance {
    /// The next number, below `below`, which is not 0.
    fn below(&mut self, below: u64) -> u64;
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    folders: BTreeMap<PathBuf, Folder>,
    operations: u64,
    power_ends: Option<u64>,
    fault: Option<Fault>,
}

#[derive(Debug, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct Folder {
    now: BTreeMap<OsString, usize>,
    synced: BTreeMap<OsString, usize>,
    pending: Vec<NameChange>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(OsString, usize),
    Take(OsString),
    Move(OsString, OsString),
}

#[derive(Debug)]
struct Opened {
    disk: Simulated,
    inode: usize,
}

impl Simulated {
    /// A disk with that (safe) directory.
    pub fn with_directory(path: &Path) -> Self {
        let disk = Self::default();
        disk.world().folders.insert(path.to_owned(), Folder::default());
        disk
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// After so many operations the power is gone, and all others fail.
    pub fn end_power_after(&self, operations: u64) {
        self.world().power_ends = Some(operations);
    }

    /// These will fail. None: no more will.
    pub fn fail(&self, fault: Option<Fault>) {
        self.world().fault = fault;
    }

    /// The disk as it is found when the power is back.
    pub fn after_power_cut(&self, chance: &mut dyn Chance) -> Self {
        let world = self.world();
        let inodes = world.inodes.iter().map(|inode| Inode::holding(inode.survivor(chance))).collect();
        let folders = world.folders.iter().map(|(path, folder)| (path.clone(), folder.survivor(chance))).collect();
        Self(Arc::new(Mutex::new(World { inodes, folders, ..World::default() })))
    }

    /// The same, with nothing on it that was not synced.
    pub fn after_worst_cut(&self) -> Self {
        let world = self.world();
        let inodes = world.inodes.iter().map(|inode| Inode::holding(inode.synced.clone())).collect();
        let folders = world.folders.iter().map(|(path, folder)| (path.clone(), Folder::holding(folder.synced.clone())));
        Self(Arc::new(Mutex::new(World { inodes, folders: folders.collect(), ..World::default() })))
    }

    /// All files, by path.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let world = self.world();
        let mut files = BTreeMap::new();
        for (path, folder) in &world.folders {
            for (name, &inode) in &folder.now {
                files.insert(
                    path.join(name),
                    world.inodes.get(inode).map(|inode| inode.now.clone()).unwrap_or_default(),
                );
            }
        }
        files
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, inode: usize) -> Handle {
        Arc::new(Opened { disk: self.clone(), inode })
    }
}

impl World {
    /// Counts an operation; an error if it is to fail.
    fn step(&mut self, needs_space: bool) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        if self.power_ends.is_some_and(|ends| number >= ends) {
            return Err(io::Error::other("the power is gone"));
        }
        let failing = self.fault.filter(|fault| (fault.from..fault.from + fault.count).contains(&number));
        match failing.filter(|fault| needs_space || fault.errno != 28) {
            Some(fault) => Err(io::Error::from_raw_os_error(fault.errno)),
            None => Ok(()),
        }
    }

    fn folder(&mut self, path: &Path) -> io::Result<(&mut Folder, OsString)> {
        let name = path.file_name().map(OsStr::to_owned).ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.folders.get_mut(path.parent().unwrap_or(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok((folder, name))
    }

    fn inode(&mut self, number: usize) -> io::Result<&mut Inode> {
        self.inodes.get_mut(number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn named(&mut self, path: &Path) -> io::Result<usize> {
        let (folder, name) = self.folder(path)?;
        folder.now.get(&name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Simulated {
    fn create(&self, path: &Path) -> io::Result<Handle> {
        let mut world = self.world();
        world.step(true)?;
        let inode = world.inodes.len();
        let (folder, name) = world.folder(path)?;
        if folder.now.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        folder.change(NameChange::Put(name, inode));
        world.inodes.push(Inode::default());
        Ok(self.handle(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Handle> {
        let mut world = self.world();
        world.step(false)?;
        world.named(path).map(|inode| self.handle(inode))
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Handle> {
        self.open(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let mut world = self.world();
        world.step(false)?;
        let folder = world.folders.get(directory).ok_or(io::ErrorKind::NotFound)?;
        Ok(folder.now.keys().cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step(true)?;
        world.named(from)?;
        let name = to.file_name().map(OsStr::to_owned).ok_or(io::ErrorKind::InvalidInput)?;
        let (folder, old) = world.folder(from)?;
        folder.change(NameChange::Move(old, name));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step(false)?;
        world.named(path)?;
        let (folder, name) = world.folder(path)?;
        folder.change(NameChange::Take(name));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step(true)?;
        let folder = world.folders.get_mut(directory).ok_or(io::ErrorKind::NotFound)?;
        folder.pending.clear();
        folder.synced = folder.now.clone();
        Ok(())
    }
}

impl ReadAt for Opened {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        world.step(false)?;
        world.inode(self.inode)?.now.as_slice().read_at(buffer, position)
    }

    fn length(&self) -> io::Result<u64> {
        let mut world = self.disk.world();
        world.step(false)?;
        Ok(world.inode(self.inode)?.now.len() as u64)
    }
}

impl DiskFile for Opened {
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut world = self.disk.world();
        let allowed = world.step(true);
        if let Err(error) = &allowed {
            if error.raw_os_error().is_none() {
                return Err(io::Error::other("the power is gone"));
            }
            // Some of it goes in before it fails.
            data.truncate(data.len() / 2);
        }
        let length = data.len();
        world.inode(self.inode)?.change(Change::Write(position as usize, data));
        allowed.map(|()| length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.step(false)?;
        world.inode(self.inode)?.change(Change::Length(length as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let allowed = world.step(true);
        let inode = world.inode(self.inode)?;
        if allowed.as_ref().is_err_and(|error| error.raw_os_error() == Some(5)) {
            // As Linux does it: said once, then what could not be written counts as clean, and is never written.
            inode.pending.clear();
        }
        allowed?;
        if !inode.pending.is_empty() {
            inode.pending.clear();
            inode.synced = inode.now.clone();
        }
        Ok(())
    }
}

impl Inode {
    fn holding(bytes: Vec<u8>) -> Self {
        Self { now: bytes.clone(), synced: bytes, pending: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now, &mut |_| true);
        self.pending.push(change);
    }

    /// What is left of it: all, a beginning with a torn end, or any of its sectors.
    fn survivor(&self, chance: &mut dyn Chance) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        let way = chance.below(4);
        let whole = if way == 0 { self.pending.len() as u64 } else { chance.below(self.pending.len() as u64 + 1) };
        for (number, change) in self.pending.iter().enumerate() {
            match number as u64 {
                number if way < 3 && number < whole => change.apply(&mut bytes, &mut |_| true),
                number if way < 3 && number > whole => break,
                _ => change.apply(&mut bytes, &mut |_| chance.below(2) == 0),
            }
        }
        bytes
    }
}

impl Change {
    /// Applies it, of a write the sectors that `survives` takes.
    fn apply(&self, bytes: &mut Vec<u8>, survives: &mut dyn FnMut(usize) -> bool) {
        match self {
            Self::Length(length) => {
                if survives(0) {
                    bytes.resize(*length, 0);
                }
            }
            Self::Write(at, data) => {
                let mut at = *at;
                let mut rest = data.as_slice();
                while !rest.is_empty() {
                    let (sector, behind) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                    if survives(at / SECTOR) {
                        bytes.resize(bytes.len().max(at + sector.len()), 0);
                        if let Some(place) = bytes.get_mut(at..at + sector.len()) {
                            place.copy_from_slice(sector);
                        }
                    }
                    at += sector.len();
                    rest = behind;
                }
            }
        }
    }
}

impl Folder {
    fn holding(names: BTreeMap<OsString, usize>) -> Self {
        Self { now: names.clone(), synced: names, pending: Vec::new() }
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    /// Changes of names survive in order, up to any.
    fn survivor(&self, chance: &mut dyn Chance) -> Self {
        let mut names = self.synced.clone();
        let whole = chance.below(self.pending.len() as u64 + 1) as usize;
        for change in self.pending.iter().take(whole) {
            change.apply(&mut names);
        }
        Self::holding(names)
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<OsString, usize>) {
        match self {
            Self::Put(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Take(name) => {
                names.remove(name);
            }
            Self::Move(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}
