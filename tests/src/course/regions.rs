//! The exercises of a source: function bodies between two anchors.
//!
//! ```text
//!     // ANCHOR: exercise_enter_uts
//!     call!(unshare(CloneFlags::CLONE_NEWUTS))?;
//!     // ANCHOR_END: exercise_enter_uts
//! ```
//!
//! There is one source, the solution's. A starter is the solution with a `todo!` in each region; what
//! a learner writes stands between the same anchors.

use anyhow::{Context, Result};

const BEGIN: &str = "// ANCHOR: exercise_";
const END: &str = "// ANCHOR_END: exercise_";

/// The names of the exercises in `source`, in order.
pub fn names(source: &str) -> Vec<&str> {
    let begins = source
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(BEGIN));
    begins.map(str::trim_end).collect()
}

/// What stands between the anchors of `name`, whole lines.
///
/// # Errors
/// An anchor isn't there any more.
pub fn body<'a>(source: &'a str, name: &str) -> Result<&'a str> {
    let (begin, end) = place(source, name)?;
    Ok(&source[begin..end])
}

/// `source` with `body` between the anchors of `name`.
pub fn with_body(source: &str, name: &str, body: &str) -> Result<String> {
    let (begin, end) = place(source, name)?;
    Ok([&source[..begin], body, &source[end..]].concat())
}

/// Where the body of `name` begins and ends.
fn place(source: &str, name: &str) -> Result<(usize, usize)> {
    let lost = || {
        format!(
            "the line `{BEGIN}{name}` or `{END}{name}` is gone\nhelp: put it back, around the body \
             of the function, or begin again with `cargo progress reset CHAPTER`"
        )
    };
    let line_of = |anchor: &str| {
        let wanted = format!("{anchor}{name}");
        let mut at = 0;
        source.split_inclusive('\n').find_map(|line| {
            let begin = at;
            at += line.len();
            (line.trim() == wanted).then_some((begin, at))
        })
    };
    let (_, begin) = line_of(BEGIN).with_context(lost)?;
    let (end, _) = line_of(END)
        .filter(|(end, _)| *end >= begin)
        .with_context(lost)?;
    Ok((begin, end))
}

/// Whether nothing has been written in place of a hole yet.
pub fn is_hole(body: &str) -> bool {
    body.contains("todo!(")
}

/// The starter of `solution`: a hole in each region, which names the exercise by `id`.
pub fn starter(solution: &str, id: impl Fn(&str) -> String) -> Result<String> {
    let mut source = without_other_anchors(solution);
    for name in names(solution) {
        let (begin, _) = place(&source, name)?;
        let anchor = source[..begin].lines().last().unwrap_or_default();
        let indent = &anchor[..anchor.len() - anchor.trim_start().len()];
        let hole = format!("{indent}todo!(\"exercise {}\")\n", id(name));
        source = with_body(&source, name, &hole)?;
    }
    Ok(source)
}

/// `source` without the anchors that mark no exercise: those are for the book.
pub fn without_other_anchors(source: &str) -> String {
    let is_other = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("// ANCHOR") && !line.starts_with(BEGIN) && !line.starts_with(END)
    };
    let lines = source.split_inclusive('\n');
    lines.filter(|line| !is_other(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "fn one() {\n    // ANCHOR: exercise_one\n    1;\n    2;\n    \
        // ANCHOR_END: exercise_one\n}\nfn two() {\n    // ANCHOR: exercise_two\n    3\n    \
        // ANCHOR_END: exercise_two\n}\n";

    #[test]
    fn a_body_can_be_taken_out_and_put_back() {
        assert_eq!(names(SOURCE), ["one", "two"]);
        assert_eq!(body(SOURCE, "one").unwrap(), "    1;\n    2;\n");
        let body = body(SOURCE, "two").unwrap();
        assert_eq!(with_body(SOURCE, "two", body).unwrap(), SOURCE);
    }

    #[test]
    fn a_starter_has_no_trace_of_the_solution() {
        let starter = starter(SOURCE, |name| format!("1.2 {name}")).unwrap();
        assert!(!starter.contains("2;") && !starter.contains("3\n"));
        assert!(is_hole(body(&starter, "one").unwrap()));
        assert!(starter.contains("todo!(\"exercise 1.2 two\")"));
    }

    #[test]
    fn a_lost_anchor_is_named() {
        let broken = SOURCE.replace("// ANCHOR_END: exercise_two", "");
        let error = body(&broken, "two").unwrap_err().to_string();
        assert!(
            error.contains("exercise_two") && error.contains("reset"),
            "{error}"
        );
        assert!(body(&broken, "one").is_ok());
    }
}
