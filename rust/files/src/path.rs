//! Paths of an archive, on paper: what keeps them below their root.

use std::collections::BTreeMap;

use crate::error::{TreeError, refused};

/// Directories below each other: one descriptor is open for each.
pub const DEPTH_MAX: usize = 256;
/// Links that are followed one after another, as in Linux: more lead nowhere.
const LINKS_MAX: usize = 40;

/// Symbolic links by the steps of their paths, and where they lead.
pub type Links = BTreeMap<Vec<Vec<u8>>, Vec<u8>>;

/// The steps of a path in an archive; none for the root itself, which some archives call `/` or `.`.
///
/// Refused: a path that is absolute, steps up, or is too deep.
pub fn steps<'a>(path: &'a [u8], what: &str) -> Result<Vec<&'a [u8]>, TreeError> {
    if path == b"/" {
        return Ok(Vec::new());
    }
    if path.starts_with(b"/") {
        return refused(format!("the {what} {} is absolute", path.escape_ascii()));
    }
    let steps: Vec<_> = path.split(|&byte| byte == b'/').filter(|step| !matches!(*step, b"" | b".")).collect();
    if steps.contains(&b"..".as_slice()) {
        return refused(format!("the {what} {} steps up", path.escape_ascii()));
    }
    if steps.len() > DEPTH_MAX {
        return refused(format!("a {what} of {} steps", steps.len()));
    }
    Ok(steps)
}

/// Whether a link to `target` in the directory `place` leads above the root, other links of the archive followed.
pub fn leaves(place: &[Vec<u8>], target: &[u8], links: &Links) -> bool {
    let mut here = place.to_vec();
    let mut ahead: Vec<&[u8]> = target.rsplit(|&byte| byte == b'/').collect();
    let mut followed = 0;
    while let Some(step) = ahead.pop() {
        match step {
            b"" | b"." => {}
            b".." => {
                if here.pop().is_none() {
                    return true;
                }
            }
            step => {
                here.push(step.to_vec());
                if let Some(onward) = links.get(&here) {
                    followed += 1;
                    if followed > LINKS_MAX {
                        return false;
                    }
                    here.pop();
                    ahead.extend(onward.rsplit(|&byte| byte == b'/'));
                }
            }
        }
    }
    false
}
