use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Line(Vec<u8>),
    Empty,
    Long,
}

#[derive(Debug, Default)]
struct Collect(Vec<Seen>);
impl LineSink for Collect {
    fn line(&mut self, line: &[u8]) {
        self.0.push(Seen::Line(line.to_vec()));
    }
    fn empty_line(&mut self) {
        self.0.push(Seen::Empty);
    }
    fn long_line(&mut self) {
        self.0.push(Seen::Long);
    }
}

/// The lines of `body` cut into `chunks`, and the most memory that was held between them.
fn split<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, max_line: usize) -> (Vec<Seen>, usize) {
    let mut splitter = LineSplitter::new(max_line);
    let mut sink = Collect::default();
    let mut held = 0;
    for chunk in chunks {
        splitter.push(chunk, &mut sink);
        held = held.max(splitter.held());
    }
    splitter.finish(&mut sink);
    (sink.0, held)
}

/// What a body means, said without chunks.
fn expected(body: &[u8], max_line: usize) -> Vec<Seen> {
    let mut lines: Vec<&[u8]> = body.split(|&byte| byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines
        .into_iter()
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .map(|line| match line.len() {
            0 => Seen::Empty,
            len if len > max_line => Seen::Long,
            _ => Seen::Line(line.to_vec()),
        })
        .collect()
}

fn line(text: &str) -> Seen {
    Seen::Line(text.as_bytes().to_vec())
}

#[test]
fn every_cut_in_two_and_in_three_gives_the_same_lines() {
    let body = "{\"a\":1}\n\r\n\n{\"b\":\"ü€😀\"}\r\nfour\rfour\n0123456789\n0123456789\r\n0123456789a\r\n\r\rlast\r";
    let body = body.as_bytes();
    let whole = expected(body, 10);
    assert!(whole.contains(&Seen::Long) && whole.contains(&Seen::Empty));
    for i in 0..=body.len() {
        for j in i..=body.len() {
            let (seen, _) = split([&body[..i], &body[i..j], &body[j..]], 10);
            assert_eq!(seen, whole, "cut at {i} and {j}");
        }
    }
}

#[test]
fn one_byte_a_chunk_gives_the_same_lines() {
    let body = b"a\r\nbb\n\n\r\nccc\nend";
    let (seen, _) = split(body.chunks(1), 2);
    assert_eq!(seen, [line("a"), line("bb"), Seen::Empty, Seen::Empty, Seen::Long, Seen::Long]);
}

#[test]
fn a_body_of_no_bytes_has_no_lines() {
    assert_eq!(split([], 10).0, []);
    assert_eq!(split([&b""[..]], 10).0, []);
}

#[test]
fn a_last_line_without_an_end_counts() {
    assert_eq!(split([&b"a\nb"[..]], 10).0, [line("a"), line("b")]);
    assert_eq!(split([&b"a\n\r"[..]], 10).0, [line("a"), Seen::Empty]);
}

#[test]
fn a_line_of_the_limit_passes_and_one_byte_more_is_refused_alone() {
    for end in ["\n", "\r\n", ""] {
        for cut in 0..=5 {
            let body = format!("x\n12345{end}");
            let (seen, _) = split([&body.as_bytes()[..cut], &body.as_bytes()[cut..]], 5);
            assert_eq!(seen, [line("x"), line("12345")], "{end:?} cut at {cut}");
            let body = format!("x\n123456{end}");
            let (seen, _) = split([&body.as_bytes()[..cut], &body.as_bytes()[cut..]], 5);
            assert_eq!(seen, [line("x"), Seen::Long], "{end:?} cut at {cut}");
        }
    }
    // A carriage return that turns out not to end the line.
    assert_eq!(split([&b"12345\r"[..], &b"6\nnext\n"[..]], 5).0, [Seen::Long, line("next")]);
}

#[test]
fn a_line_without_end_is_never_held_past_the_limit() {
    let chunk = [b'x'; 1000];
    let (seen, held) = split(std::iter::repeat_n(&chunk[..], 100), 1500);
    assert_eq!(seen, [Seen::Long]);
    assert!(held <= 1501, "{held} bytes held for a limit of 1500");
}

#[test]
fn a_long_carried_line_gives_its_memory_back() {
    let part = vec![b'x'; 200 * 1024];
    let mut splitter = LineSplitter::new(1024 * 1024);
    let mut sink = Collect::default();
    splitter.push(&part, &mut sink);
    splitter.push(&part, &mut sink);
    assert!(splitter.held() >= 400 * 1024);
    splitter.push(b"\n", &mut sink);
    assert_eq!(splitter.held(), 0);
    assert_eq!(sink.0.len(), 1);
}

proptest! {
    #[test]
    fn any_cut_gives_the_lines_of_the_whole(
        body in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x'), any::<u8>()], 0..200),
        cuts in proptest::collection::vec(0usize..200, 0..20),
        max_line in 1usize..12,
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut <= body.len()).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let (seen, held) = split(cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]), max_line);
        prop_assert_eq!(seen, expected(&body, max_line));
        prop_assert!(held <= max_line + 1);
    }
}
