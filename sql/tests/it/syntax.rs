//! Text to syntax and back.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect, expect_file};
use millpond_sql::diagnostic::Code;
use millpond_sql::parse::*;
use millpond_sql::substitute::Variables;
use millpond_sql::syntax::*;
use millpond_sql::token::tokenize;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(data(name)).expect("test data")
}

/// Blocks of lines with an empty line between them.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").map(str::trim_end).filter(|b| !b.is_empty())
}

/// What is written must read the same, and be written the same again.
fn check_round_trip(parsed: &Parsed) -> String {
    let text = parsed.statement.to_string();
    match parse_statement(&text) {
        Ok(again) => {
            assert_eq!(again.statement, parsed.statement, "{text}");
            assert_eq!(again.statement.to_string(), text);
        }
        Err(error) => panic!("{}\n{}", parsed.text, error.render(&text)),
    }
    text
}

#[test]
fn statements_are_written_back() {
    let input = read("statements.sql");
    let mut out = String::new();
    for parsed in parse(&input).unwrap_or_else(|e| panic!("{}", e.render(&input))) {
        assert_eq!(parsed.span.slice(&input), parsed.text);
        out.push_str(&check_round_trip(&parsed));
        out.push_str(";\n");
    }
    expect_file![data("statements.expected.sql")].assert_eq(&out);
}

#[test]
fn errors_point_at_the_place() {
    let mut out = String::new();
    for text in blocks(&read("syntax_errors.sql")) {
        match parse(text) {
            Ok(_) => writeln!(out, "no error: {text}\n").expect("text"),
            Err(error) => writeln!(out, "{}", error.render(text)).expect("text"),
        }
    }
    expect_file![data("syntax_errors.expected.txt")].assert_eq(&out);
}

/// An expression with all its parentheses.
fn shape(expr: &Expr) -> String {
    match &expr.kind {
        ExprKind::Binary { op, left, right } => format!("({} {op} {})", shape(left), shape(right)),
        ExprKind::Unary { op, operand } => format!("({op:?} {})", shape(operand)),
        ExprKind::Subscript { base, index } => format!("({}[{}])", shape(base), shape(index)),
        ExprKind::Field { base, field } => format!("({}->{field})", shape(base)),
        ExprKind::Literal(literal) => format!("{literal:?}"),
        ExprKind::Column(column) => column.to_string(),
        ExprKind::Lambda { parameters, body } => {
            let parameters: Vec<_> = parameters.iter().map(Ident::as_str).collect();
            format!("([{}] => {})", parameters.join(" "), shape(body))
        }
        other => {
            let name = format!("{other:?}");
            let name = name.split([' ', '(', '{']).next().unwrap_or_default().to_string();
            let parts: Vec<_> = expr.children().into_iter().map(shape).collect();
            format!("({name} {})", parts.join(" "))
        }
    }
}

fn check_shape(text: &str, expected: Expect) {
    match parse_expression(text) {
        Ok(expr) => {
            expected.assert_eq(&shape(&expr));
            let written = expr.to_string();
            assert_eq!(parse_expression(&written).as_ref(), Ok(&expr), "{written}");
            assert_eq!(expr.span.slice(text), text.trim());
        }
        Err(error) => expected.assert_eq(&error.sentence()),
    }
}

#[test]
fn operators_bind_in_order() {
    check_shape(
        "a OR b AND NOT c = d || e + f * -g",
        expect![["(A OR (B AND (Not (C = (D || (E + (F * (Minus G))))))))"]],
    );
    check_shape("a - b - c * d / e", expect![["((A - B) - ((C * D) / E))"]]);
    check_shape("a AND b AND c AND d OR e", expect![["(((A AND B) AND (C AND D)) OR E)"]]);
    check_shape("x[1]->f->g[-1] + s.y->z", expect!["(((((X[Integer(1)])->F)->G)[Integer(-1)]) + (S.Y->Z))"]);
    check_shape(
        "a BETWEEN 1 + 2 AND 3 AND b NOT IN (1, 'x') AND c NOT LIKE 'y' ESCAPE '!'",
        expect![[
            r#"(((Between A (Integer(1) + Integer(2)) Integer(3)) AND (In B Integer(1) String("x"))) AND (Like C String("y")))"#
        ]],
    );
    check_shape(
        "a IS NOT NULL AND b IS DISTINCT FROM c + 1",
        expect!["((IsNull A) AND (B IS DISTINCT FROM (C + Integer(1))))"],
    );
    check_shape("a + b AT TIME ZONE 'UTC' * -c", expect![[r#"(A + ((AtTimeZone B String("UTC")) * (Minus C)))"#]]);
    check_shape("(a = b) = (NOT c)", expect!["((A = B) = (Not C))"]);
    check_shape(
        "a = b = c",
        expect![[
            r#"expected the end of the expression, AND or OR, found "="; comparisons do not chain; put one of them in parentheses"#
        ]],
    );
    check_shape(
        "a + NOT b",
        expect![[r#"expected an expression, found "NOT"; put NOT and what it negates in parentheses"#]],
    );
    check_shape("f(x => x + 1, (x, `y z`) => (x, y), DAYS)", expect![[r#"expected an operator or ")", found ",""#]]);
    check_shape(
        "f(x => x + 1, (x, `y z`) => x || y, (x), g(*), h())",
        expect!["(Call ([X] => (X + Integer(1))) ([X y z] => (X || Y)) X (Call ) (Call ))"],
    );
    check_shape(
        "CASE a WHEN 1 THEN 2 ELSE 3 END + CASE WHEN b THEN c END",
        expect!["((Case A Integer(1) Integer(2) Integer(3)) + (Case B C))"],
    );
    check_shape(
        "MAP('a' := 1 = 2, 'b' := ARRAY[]) = STRUCT(x := CAST(y AS ARRAY<MAP<STRING, DECIMAL(4,2)>>))",
        expect![[r#"((Map String("a") (Integer(1) = Integer(2)) String("b") (Array )) = (Struct (Cast Y)))"#]],
    );
}

#[test]
fn numbers_keep_what_was_written() {
    let check = |text: &str, expected: Expect| match parse_expression(text) {
        Ok(Expr { kind: ExprKind::Literal(literal), .. }) => {
            assert_eq!(literal.to_string(), text.replace(' ', ""));
            expected.assert_eq(&format!("{literal:?}"));
        }
        Ok(expr) => expected.assert_eq(&shape(&expr)),
        Err(error) => expected.assert_eq(&error.sentence()),
    };
    check("2147483647", expect!["Integer(2147483647)"]);
    check("-2147483648", expect!["Integer(-2147483648)"]);
    check("2147483648", expect!["BigInt(2147483648)"]);
    check("- 9223372036854775808", expect!["BigInt(-9223372036854775808)"]);
    check(
        "9223372036854775808",
        expect![
            "the number 9223372036854775808 is too large for a BIGINT; a number with a dot is a DECIMAL, one with an exponent a DOUBLE"
        ],
    );
    check("12.30", expect![[r#"Decimal(DecimalLiteral { text: "12.30", unscaled: 1230, precision: 4, scale: 2 })"#]]);
    check("-0.05", expect![[r#"Decimal(DecimalLiteral { text: "-0.05", unscaled: -5, precision: 2, scale: 2 })"#]]);
    check("00.00", expect![[r#"Decimal(DecimalLiteral { text: "00.00", unscaled: 0, precision: 2, scale: 2 })"#]]);
    check(
        "123456789012345678901234567890123456789.",
        expect!["the number 123456789012345678901234567890123456789. is too large for a DECIMAL"],
    );
    check("1E-3", expect![[r#"Double(DoubleLiteral { text: "1E-3", value: 0.001 })"#]]);
    check("1e400", expect!["the number 1e400 is too large for a DOUBLE"]);
    check("- -5", expect!["(Minus Integer(-5))"]);
    check("-(5)", expect!["(Minus Integer(5))"]);
}

#[test]
fn types() {
    let check = |text: &str, expected: Expect| match parse_type(text) {
        Ok(ty) => {
            expected.assert_eq(&ty.to_string());
            assert_eq!(parse_type(&ty.to_string()).as_ref(), Ok(&ty));
        }
        Err(error) => expected.assert_eq(&error.sentence()),
    };
    check(
        "struct<a array<array<int>>, `b` map<varchar(string), decimal(4 , 2)>>",
        expect!["STRUCT<A ARRAY<ARRAY<INT>>, `b` MAP<VARCHAR(STRING), DECIMAL(4, 2)>>"],
    );
    check("int array array", expect!["ARRAY<ARRAY<INT>>"]);
    check("struct<>", expect!["STRUCT<>"]);
    check("`my type`", expect!["`my type`"]);
    check("varchar(max)", expect![[r#"expected STRING or a whole number, found "max""#]]);
    check("array<int", expect![[r#"expected "(" or ">", found the end of the statement"#]]);
}

#[test]
fn variables_are_replaced_and_places_stay() {
    let variables: Variables = [("src", "my_stream"), ("n", "12")].into_iter().collect();
    let text = "DEFINE n = '${N}34'; SELECT '${src}', a + b, '$${n}' FROM ${src} WHERE a = ${n};";
    let parsed = parse_with_variables(text, &variables).unwrap_or_else(|e| panic!("{}", e.render(text)));
    let written: Vec<_> = parsed.iter().map(|p| p.statement.to_string()).collect();
    expect![[r#"
        DEFINE N = '1234'
        SELECT 'my_stream', A + B, '${n}' FROM MY_STREAM WHERE A = 1234"#]]
    .assert_eq(&written.join("\n"));
    let Some(Parsed { statement: Statement::Query(query), .. }) = parsed.get(1) else { panic!("{parsed:?}") };
    assert_eq!(query.select.get(1).map(|i| i.span().slice(text)), Some("a + b"));
    assert_eq!(query.from.first.name.span.slice(text), "${src}");
    assert_eq!(query.filter.as_ref().map(|e| e.span.slice(text)), Some("a = ${n}"));

    let text = "SELECT ${none}\nFROM ${src} WHERE;";
    let error = parse_with_variables(text, &variables).expect_err("undefined");
    assert_eq!(error.code, Code::UndefinedVariable);
    expect![[r#"
        error[SQL004]: the variable "none" is not defined
         --> line 1, column 8
          |
        1 | SELECT ${none}
          |        ^^^^^^^
          = hint: define it with DEFINE none = '...';
    "#]]
    .assert_eq(&error.render(text));
    let text = "SELECT 1\nFROM ${src} WHERE;";
    let error = parse_with_variables(text, &variables).expect_err("syntax");
    expect!["line 2:18: Syntax Error: expected an expression, found the end of the statement"]
        .assert_eq(&error.with_position(text));
}

#[test]
fn texts_are_split_at_semicolons() {
    let text = "SELECT ';' FROM `a;b`; -- c;\n/* ; */ LIST STREAMS ;; SELECT";
    let parts: Vec<_> = split(text).into_iter().map(|s| s.slice(text)).collect();
    assert_eq!(parts, ["SELECT ';' FROM `a;b`", "LIST STREAMS", "SELECT"]);
    let complete = ["", " -- x", "LIST STREAMS;", "LIST STREAMS; -- x"].map(is_complete);
    let incomplete =
        ["LIST STREAMS", "SELECT 'a;", "LIST STREAMS; /*", "SELECT `;", "LIST STREAMS; SELECT"].map(is_complete);
    assert_eq!((complete, incomplete), ([true; 4], [false; 5]));
}

#[test]
fn scripts_are_for_the_client() {
    let command = parse_client_command("run script 'a.sql';");
    assert_eq!(command.and_then(Result::ok).map(|c| c.to_string()).as_deref(), Some("RUN SCRIPT 'a.sql'"));
    assert!(parse_client_command("LIST STREAMS;").is_none());
    assert!(parse_client_command("RUN SCRIPT;").is_some_and(|c| c.is_err()));
    assert!(parse("RUN SCRIPT 'a.sql';").is_err());
}

#[test]
fn completion_knows_what_can_follow() {
    let check = |text: &str, expected: Expect| {
        let found = complete(text);
        expected.assert_eq(&format!("{} {:?} {:?}", found.start, found.words, found.name));
    };
    check("LIST STREAMS; cre", expect![[r#"14 ["CREATE"] None"#]]);
    check("CREATE ", expect![[r#"7 ["OR", "SINK", "SOURCE", "STREAM", "TABLE", "TYPE"] None"#]]);
    check(
        "SELECT * FROM a ",
        expect![[
            r#"16 ["AS", "EMIT", "FULL", "GROUP", "HAVING", "INNER", "JOIN", "LEFT", "LIMIT", "ORDER", "PARTITION", "RIGHT", "WHERE", "WINDOW"] None"#
        ]],
    );
    check("SELECT * FROM a GROUP ", expect![[r#"22 ["BY"] None"#]]);
    check("SELECT * FROM ", expect![[r#"14 [] Some("the name of a source")"#]]);
    check("SELECT a + ", expect![[r#"11 [] Some("an expression")"#]]);
    check("CREATE STREAM s (a INT, b ", expect![[r#"26 [] Some("a type")"#]]);
    check("SELECT 'abc", expect!["11 [] None"]);
    check("SELEKT * ", expect!["9 [] None"]);
}

/// Small and always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Whatever a text is: it ends, does not panic, places lie within it, and what is read is written back.
fn check_any(text: &str) {
    let within = |span: Span| {
        assert!(span.start <= span.end && text.get(span.range()).is_some(), "{span:?} in {text:?}");
    };
    let mut end = 0;
    for token in tokenize(text) {
        within(token.span);
        assert!(token.span.start >= end);
        end = token.span.end;
    }
    split(text).into_iter().for_each(within);
    is_complete(text);
    complete(text);
    let variables: Variables = [("a", "x"), ("b", "';")].into_iter().collect();
    for result in [parse(text), parse_with_variables(text, &variables)] {
        match result {
            Ok(parsed) => parsed.iter().for_each(|p| {
                within(p.span);
                check_round_trip(p);
            }),
            Err(error) => {
                error.span.into_iter().for_each(within);
                error.render(text);
                error.with_position(text);
            }
        }
    }
}

#[test]
fn any_text_is_read_or_refused() {
    /// Words, between two spaces each; white space of other kinds follows.
    const PIECES: &str = "SELECT  FROM  WHERE  GROUP BY  PARTITION BY  (  )  [  ]  <  >  ,  ;  .  *  ->  =>  :=  =  +  -  \
        --  /*  */  '  ''  \"  `  a  `b c`  1  1.5  1e5  .5  5.  ${a}  ${b}  $${a}  $  ${  NOT  AND  OR  IS  NULL  IN  \
        BETWEEN  LIKE  CASE  WHEN  THEN  END  CAST  AS  ARRAY  MAP  STRUCT  INT  CREATE  STREAM  TABLE  INSERT INTO  \
        VALUES  WITH  EMIT  CHANGES  LIMIT  WINDOW  TUMBLING  SIZE  DAYS  JOIN  LEFT  WITHIN  ON  EXPLAIN  LIST  TOPICS  \
        ORDER  BY  AT  TIME ZONE  é  N'  x'  0x1f  1_a  @  #  ~  ||  ||/  <=>  !  ?  \\  ::";
    let pieces: Vec<_> = PIECES.split("  ").chain(["\0", "\n", "\r\n", "\t", " "]).collect();
    let seeds = read("statements.sql");
    let seeds: Vec<_> = split(&seeds).into_iter().map(|s| s.slice(&seeds)).collect();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..6000 {
        let mut text = String::new();
        if round % 2 == 0 {
            for _ in 0..random.below(30) {
                text.push_str(random.pick::<&str>(&pieces));
                text.push_str(["", " "][random.below(2)]);
            }
        } else {
            // A valid statement with a few tokens taken out, doubled or replaced.
            let seed = *random.pick(&seeds);
            let tokens = tokenize(seed);
            let changes: Vec<_> = (0..1 + random.below(3)).map(|_| random.below(tokens.len())).collect();
            for (i, token) in tokens.iter().enumerate() {
                let source = token.span.slice(seed);
                match changes.contains(&i).then(|| random.below(4)) {
                    Some(0) => {}
                    Some(1) => text.push_str(&format!("{source} {source} ")),
                    Some(2) => text.push_str(&format!("{} ", random.pick::<&str>(&pieces))),
                    Some(_) => text.push_str(&format!("{source} {}", random.pick::<&str>(&pieces))),
                    None => text.push_str(&format!("{source} ")),
                }
            }
        }
        check_any(&text);
    }
}

#[test]
fn no_text_is_too_deep_or_too_long() {
    const COUNT: usize = 20_000;
    let deep = |before: &str, middle: &str, after: &str| {
        format!("SELECT {}{middle}{} FROM s;", before.repeat(COUNT), after.repeat(COUNT))
    };
    let texts = [
        deep("(", "a", ")"),
        deep("- ", "a", ""),
        deep("NOT ", "a", ""),
        deep("f(", "a", ")"),
        deep("f(x => ", "a", ")"),
        deep("a[", "1", "]"),
        deep("ARRAY[", "1", "]"),
        deep("MAP('a' := ", "1", ")"),
        deep("CASE WHEN a THEN ", "1", " END"),
        deep("CAST(", "a", " AS INT)"),
        deep("", "a", "->a"),
        deep("", "a", " + a"),
        deep("", "a", " || a"),
        deep("a OR (", "a", ")"),
        format!("SELECT CAST(a AS {}INT{}) FROM s;", "ARRAY<".repeat(COUNT), ">".repeat(COUNT)),
        format!("SELECT CAST(a AS INT{}) FROM s;", " ARRAY".repeat(COUNT)),
        format!("SELECT a FROM s GROUP BY {}a{};", "(".repeat(COUNT), ")".repeat(COUNT)),
    ];
    for text in texts {
        let error = parse(&text).expect_err("too deep");
        assert_eq!(error.code, Code::TooLarge, "{}", error.sentence());
    }
    for text in [
        deep("", "a", " OR a = 1 AND b"),
        deep("", "a", ", a"),
        deep("a IN (1, ", "2", "), 1"),
        "LIST STREAMS;".repeat(COUNT),
        "${".repeat(COUNT),
        "'".repeat(COUNT),
        "[._".repeat(COUNT),
    ] {
        check_long(&text);
    }
    // Just at the limit, and on a small stack.
    let half = DEPTH_MAX - 2;
    let text = format!("SELECT {}a{} FROM s", "f(".repeat(half), ")".repeat(half));
    let walk = move || {
        let parsed = parse(&text).map(|p| p.iter().map(check_round_trip).count());
        assert_eq!(parsed, Ok(1));
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(walk).expect("thread").join().expect("no overflow");
}

fn check_long(text: &str) {
    // Most of them are read; that they end is what counts.
    let _ = parse(text).map(|p| p.len());
    split(text);
    complete(text);
}

/// The statements of the recorded cases: all must be read but those that are expected to be refused.
#[test]
fn recorded_cases_are_read() {
    let root = std::env::var_os("MILLPOND_CASES").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/ksqldb"));
    let mut files = Vec::new();
    find_json(&root, &mut files);
    if files.is_empty() {
        eprintln!("NOT CHECKED: there are no cases in {} (set MILLPOND_CASES)", root.display());
        return;
    }
    let (mut read, mut refused, mut wrong) = (0, 0, String::new());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("cases");
        let cases: serde_json::Value = serde_json::from_str(&text).expect("cases");
        for case in cases["tests"].as_array().into_iter().flatten() {
            let fails = !case["expectedException"].is_null() || !case["expectedError"].is_null();
            let statements = case["statements"].as_array().into_iter().flatten();
            for statement in statements.filter_map(|s| s.as_str()) {
                let statement = statement.replace("{FORMAT}", "JSON");
                match parse(&statement) {
                    Ok(parsed) => {
                        read += parsed.len();
                        parsed.iter().for_each(|p| drop(check_round_trip(p)));
                    }
                    Err(_) if fails => refused += 1,
                    Err(error) => {
                        let name = case["name"].as_str().unwrap_or_default();
                        writeln!(wrong, "{}: {name}\n{}", file.display(), error.render(&statement)).expect("text");
                    }
                }
            }
        }
    }
    eprintln!("recorded cases: {read} statements read, {refused} refused as expected");
    assert!(wrong.is_empty(), "{wrong}");
}

fn find_json(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find_json(&path, files);
        } else if path.extension().is_some_and(|e| e == "json") {
            files.push(path);
        }
    }
}
