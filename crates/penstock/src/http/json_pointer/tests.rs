use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn find(pointer: &str, document: &str) -> Option<String> {
    find_bytes(pointer, document.as_bytes()).map(|key| String::from_utf8(key).expect("the document was UTF-8"))
}

fn find_bytes(pointer: &str, document: &[u8]) -> Option<Vec<u8>> {
    let pointer = JsonPointer::parse(pointer).expect("a pointer");
    let mut scratch = Vec::new();
    pointer.find(document, &mut scratch).ok().map(<[u8]>::to_vec)
}

#[test]
fn the_member_is_a_strings_characters_or_its_text() {
    let document =
        r#" {"id":"u-1","n":-1.50e3,"o":{"a": [1, 2]} , "t":true,"z":null,"e":"","x":"a\"b\\\/\n\u00e9\ud83d\ude00"}"#;
    assert_eq!(find("/id", document).as_deref(), Some("u-1"));
    assert_eq!(find("/n", document).as_deref(), Some("-1.50e3"));
    assert_eq!(find("/o", document).as_deref(), Some(r#"{"a": [1, 2]}"#));
    assert_eq!(find("/o/a", document).as_deref(), Some("[1, 2]"));
    assert_eq!(find("/o/a/1", document).as_deref(), Some("2"));
    assert_eq!(find("/t", document).as_deref(), Some("true"));
    assert_eq!(find("/z", document).as_deref(), Some("null"));
    assert_eq!(find("/e", document).as_deref(), Some(""));
    assert_eq!(find("/x", document).as_deref(), Some("a\"b\\/\né😀"));
}

#[test]
fn names_may_hold_escapes_on_both_sides() {
    assert_eq!(find("/a~1b", r#"{"a/b":1}"#).as_deref(), Some("1"));
    assert_eq!(find("/a~0b", r#"{"a~b":1}"#).as_deref(), Some("1"));
    assert_eq!(find("/~01", r#"{"~1":1}"#).as_deref(), Some("1"));
    assert_eq!(find("/é", r#"{"\u00e9":1}"#).as_deref(), Some("1"));
    assert_eq!(find("/", r#"{"":1}"#).as_deref(), Some("1"));
    assert_eq!(find("/0", r#"{"0":7}"#).as_deref(), Some("7"));
    assert_eq!(find("/01", r#"{"01":7}"#).as_deref(), Some("7"));
}

#[test]
fn the_first_of_equal_names_counts() {
    assert_eq!(find("/a", r#"{"a":1,"a":2}"#).as_deref(), Some("1"));
}

#[test]
fn a_missing_member_or_broken_json_on_the_way_is_not_found() {
    for (pointer, document) in [
        ("/a", ""),
        ("/a", "1"),
        ("/a", "\"a\""),
        ("/a", "{}"),
        ("/a", "[]"),
        ("/0", "[]"),
        ("/1", "[1]"),
        ("/-", "[1]"),
        ("/00", "[1]"),
        ("/a", "[1]"),
        ("/a", r#"{"b":1}"#),
        ("/a", r#"{"a"}"#),
        ("/a", r#"{"a":}"#),
        ("/a", r#"{"a":"#),
        ("/a", r#"{"a":"open"#),
        ("/a", r#"{"a":"\"#),
        ("/a", r#"{"a":"\ud800"}"#),
        ("/a", r#"{"a":"\ud800\u0041"}"#),
        ("/a", r#"{"a":"\udc00"}"#),
        ("/a", r#"{"a":"\x"}"#),
        ("/a", r#"{"a":"\u12"}"#),
        ("/a", r#"{"a":nope}"#),
        ("/a", r#"{"a":[1,}"#),
        ("/a", r#"{"a":[1,]}"#),
        ("/a", r#"{b:1,"a":2}"#),
        ("/a/b", r#"{"a":1}"#),
    ] {
        assert_eq!(find(pointer, document), None, "{pointer} of {document}");
    }
}

#[test]
fn what_is_no_pointer_is_told() {
    assert_eq!(JsonPointer::parse(""), Err(PointerError::NoSlash));
    assert_eq!(JsonPointer::parse("a"), Err(PointerError::NoSlash));
    assert_eq!(JsonPointer::parse("/a~2"), Err(PointerError::Tilde));
    assert_eq!(JsonPointer::parse("/a~"), Err(PointerError::Tilde));
}

#[test]
fn nesting_costs_no_stack() {
    let deep = "[".repeat(1_000_000);
    assert_eq!(find("/a", &format!("{{\"b\":{deep}")), None);
    assert_eq!(find("/0", &deep), None);
    let balanced = format!("{{\"b\":{}{},\"a\":1}}", deep, "]".repeat(1_000_000));
    assert_eq!(find("/a", &balanced).as_deref(), Some("1"));
    assert_eq!(find("/b", &balanced).map(|member| member.len()), Some(2_000_000));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-c/~\"\\\\]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("[a-c/~\"\\\\é0-2]{0,2}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Every pointer that leads to a member of `value`.
fn pointers(value: &Value, prefix: &str, out: &mut Vec<String>) {
    let mut visit = |token: &str, member: &Value| {
        let token = token.replace('~', "~0").replace('/', "~1");
        let pointer = format!("{prefix}/{token}");
        pointers(member, &pointer, out);
        out.push(pointer);
    };
    match value {
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                visit(&index.to_string(), element);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                visit(name, member);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn agrees_with_serde_json(value in json(), pretty in any::<bool>(), stray in "(/[a-c0-2~01]{0,2}){1,3}") {
        let document = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let document = document.expect("a value is JSON");
        let mut asked = Vec::new();
        pointers(&value, "", &mut asked);
        if JsonPointer::parse(&stray).is_ok() {
            asked.push(stray);
        }
        for pointer in asked {
            let found = find(&pointer, &document);
            match value.pointer(&pointer) {
                None => prop_assert_eq!(found, None),
                Some(Value::String(text)) => prop_assert_eq!(found.as_ref(), Some(text)),
                Some(member) => {
                    let found: Value = serde_json::from_str(&found.expect("it is there")).expect("JSON text");
                    prop_assert_eq!(&found, member);
                }
            }
        }
    }

    #[test]
    fn no_bytes_panic(document in proptest::collection::vec(prop_oneof![
        Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b','), Just(b':'), Just(b'a'), Just(b'u'), Just(b'0'), any::<u8>()
    ], 0..60)) {
        for pointer in ["/a", "/0", "/a/a", "/0/0", "/"] {
            let _ = find_bytes(pointer, &document);
        }
    }
}
