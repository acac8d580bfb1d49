//! Paths of an archive on paper: what leads out is seen to.

use tailrace_files::path::{DEPTH_MAX, Links, leaves, steps};

#[test]
fn the_steps_of_a_path() {
    let cases: [(&[u8], &[&[u8]]); 6] = [
        (b"a", &[b"a"]),
        (b"./a//b/.", &[b"a", b"b"]),
        (b"/", &[]),
        (b".", &[]),
        (b"...", &[b"..."]),
        (b"a/b", &[b"a", b"b"]),
    ];
    for (path, expected) in cases {
        assert_eq!(steps(path, "path").unwrap(), expected);
    }
    assert_eq!(steps(&b"a/".repeat(DEPTH_MAX), "path").unwrap().len(), DEPTH_MAX);
}

#[test]
fn paths_that_leave_are_refused() {
    for path in [b"/a".as_slice(), b"//", b"..", b"a/..", b"../a", &b"a/".repeat(DEPTH_MAX + 1)] {
        assert!(steps(path, "path").is_err(), "{}", path.escape_ascii());
    }
}

#[test]
fn links_are_followed_through_other_links() {
    let place = |path: &[u8]| steps(path, "path").unwrap().iter().map(|step| step.to_vec()).collect::<Vec<_>>();
    let links: Links = [(b"a/l".as_slice(), b"..".as_slice()), (b"m", b"m"), (b"n", b"a/l/x")]
        .map(|(path, target)| (place(path), target.to_vec()))
        .into();
    for (from, target, leads_out) in [
        (b"".as_slice(), b"a/../b".as_slice(), false),
        (b"", b"a/../..", true),
        (b"a", b"../b", false),
        (b"a", b"../../b", true),
        (b"a", b"l/..", true),
        (b"", b"n/..", false),
        (b"", b"n/../..", true),
        (b"", b"m/../..", false),
    ] {
        assert_eq!(leaves(&place(from), target, &links), leads_out, "{}", target.escape_ascii());
    }
}
