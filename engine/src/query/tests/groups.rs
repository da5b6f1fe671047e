//! GROUP BY and its windows: what is sent on, what is taken back, what comes late.

use super::*;

#[test]
fn groups_of_a_stream() {
    check(
        &counted("CREATE TABLE O AS SELECT G, COUNT(*) AS N, SUM(V) AS X FROM S GROUP BY G;"),
        r#"
        s 10 a {"G": "x", "V": 1}
        s 20 b {"G": "y", "V": 2}
        restart
        s 15 c {"G": "x", "V": 3}
        s 30 d {"G": null, "V": 3}
        s 30 d null
        s 40 null {"G": "y", "V": null}
        "#,
        "O",
        expect![[r#"
            x {"N":1,"X":1} 10
            y {"N":1,"X":2} 20
            x {"N":2,"X":4} 15
            y {"N":2,"X":2} 40
        "#]],
    );
}

#[test]
fn groups_of_a_table_take_back_what_was_replaced() {
    check(
        &counted("CREATE TABLE O AS SELECT G, COUNT(*) AS N, SUM(V) AS X FROM T GROUP BY G;"),
        r#"
        t 10 a {"G": "x", "V": 1}
        t 20 b {"G": "y", "V": 2}
        restart
        t 30 a {"G": "x", "V": 5}
        t 40 a {"G": "y", "V": 6}
        t 50 b null
        t 55 b null
        t 60 a {"G": null, "V": 6}
        "#,
        "O",
        expect![[r#"
            x {"N":1,"X":1} 10
            y {"N":1,"X":2} 20
            x {"N":1,"X":5} 30
            x {"N":0,"X":0} 40
            y {"N":2,"X":8} 40
            y {"N":1,"X":6} 50
            y {"N":0,"X":0} 60
        "#]],
    );
}

#[test]
fn having_takes_back_what_no_longer_holds() {
    check(
        &counted("CREATE TABLE O AS SELECT G, COUNT(*) AS N FROM T GROUP BY G HAVING COUNT(*) > 1;"),
        r#"
        t 10 a {"G": "x"}
        t 20 b {"G": "x"}
        t 30 c {"G": "x"}
        t 40 b {"G": "y"}
        t 50 c {"G": "y"}
        t 60 a null
        "#,
        "O",
        expect![[r#"
            x {"N":2} 20
            x {"N":3} 30
            x {"N":2} 40
            x null 50
            y {"N":2} 50
        "#]],
    );
}

const WINDOWED: &str = r#"
    s 1000 a {"V": 1}
    s 9000 a {"V": 2}
    s 5000 b {"V": 3}
    s 12000 a {"V": 4}
    s 8000 a {"V": 5}
    restart
    s 16000 b {"V": 6}
    s 9999 a {"V": 7}
    s 11000 a {"V": 8}
    s 45000 c {"V": 9}
    s 14000 c {"V": 9}
"#;

#[test]
fn tumbling_windows_close_after_their_grace() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N, SUM(V) AS X FROM S \
             WINDOW TUMBLING (SIZE 10 SECONDS, GRACE PERIOD 5 SECONDS) GROUP BY K;",
        ),
        WINDOWED,
        "O",
        expect![[r#"
            a@0 {"N":1,"X":1} 1000
            a@0 {"N":2,"X":3} 9000
            b@0 {"N":1,"X":3} 5000
            a@10000 {"N":1,"X":4} 12000
            a@0 {"N":3,"X":8} 9000
            b@10000 {"N":1,"X":6} 16000
            a@10000 {"N":2,"X":12} 12000
            c@40000 {"N":1,"X":9} 45000
            Late s 0/6: late row at 9999 for window [0, 10000), closed at 11000
            Late s 0/9: late row at 14000 for window [10000, 20000), closed at 40000
        "#]],
    );
}

#[test]
fn a_late_row_after_a_restart() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N FROM S \
             WINDOW TUMBLING (SIZE 10 SECONDS, GRACE PERIOD 0 SECONDS) GROUP BY K;",
        ),
        r#"
        s 5000 a {"V": 1}
        s 10000 b {"V": 1}
        restart
        s 9999 a {"V": 1}
        "#,
        "O",
        expect![[r#"
            a@0 {"N":1} 5000
            b@10000 {"N":1} 10000
            Late s 0/2: late row at 9999 for window [0, 10000), closed at 10000
        "#]],
    );
}

#[test]
fn hopping_windows_overlap() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N, WINDOWSTART AS WS, WINDOWEND AS WE FROM S \
             WINDOW HOPPING (SIZE 10 SECONDS, ADVANCE BY 5 SECONDS, GRACE PERIOD 0 SECONDS) GROUP BY K;",
        ),
        WINDOWED,
        "O",
        expect![[r#"
            a@0 {"N":1,"WS":0,"WE":10000} 1000
            a@0 {"N":2,"WS":0,"WE":10000} 9000
            a@5000 {"N":1,"WS":5000,"WE":15000} 9000
            b@0 {"N":1,"WS":0,"WE":10000} 5000
            b@5000 {"N":1,"WS":5000,"WE":15000} 5000
            a@5000 {"N":2,"WS":5000,"WE":15000} 12000
            a@10000 {"N":1,"WS":10000,"WE":20000} 12000
            a@5000 {"N":3,"WS":5000,"WE":15000} 12000
            b@10000 {"N":1,"WS":10000,"WE":20000} 16000
            b@15000 {"N":1,"WS":15000,"WE":25000} 16000
            a@10000 {"N":2,"WS":10000,"WE":20000} 12000
            c@40000 {"N":1,"WS":40000,"WE":50000} 45000
            c@45000 {"N":1,"WS":45000,"WE":55000} 45000
            Late s 0/4: late row at 8000 for window [0, 10000), closed at 12000
            Late s 0/6: late row at 9999 for window [0, 10000), closed at 16000
            Late s 0/6: late row at 9999 for window [5000, 15000), closed at 16000
            Late s 0/7: late row at 11000 for window [5000, 15000), closed at 16000
            Late s 0/9: late row at 14000 for window [5000, 15000), closed at 45000
            Late s 0/9: late row at 14000 for window [10000, 20000), closed at 45000
        "#]],
    );
}

#[test]
fn sessions_merge() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N, SUM(V) AS X FROM S \
             WINDOW SESSION (2 SECONDS, GRACE PERIOD 5 SECONDS) GROUP BY K;",
        ),
        r#"
        s 1000 a {"V": 1}
        s 1000 a {"V": 2}
        s 4500 a {"V": 4}
        s 3000 a {"V": 8}
        s 2000 b {"V": 16}
        restart
        s 3500 a {"V": 32}
        s 20000 b {"V": 64}
        s 6000 a {"V": 128}
        s 13000 a {"V": 256}
        "#,
        "O",
        expect![[r#"
            a@1000..1000 {"N":1,"X":1} 1000
            a@1000..1000 {"N":2,"X":3} 1000
            a@4500..4500 {"N":1,"X":4} 4500
            a@1000..1000 null 1000
            a@4500..4500 null 4500
            a@1000..4500 {"N":4,"X":15} 4500
            b@2000..2000 {"N":1,"X":16} 2000
            a@1000..4500 null 4500
            a@1000..4500 {"N":5,"X":47} 4500
            b@20000..20000 {"N":1,"X":64} 20000
            a@13000..13000 {"N":1,"X":256} 13000
            Late s 0/7: late row at 6000: sessions that end before 13000 are closed
        "#]],
    );
}

#[test]
fn final_windows_are_emitted_once() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N, SUM(V) AS X FROM S \
             WINDOW TUMBLING (SIZE 10 SECONDS, GRACE PERIOD 5 SECONDS) GROUP BY K EMIT FINAL;",
        ),
        WINDOWED,
        "O",
        expect![[r#"
            a@0 {"N":3,"X":8} 9000
            b@0 {"N":1,"X":3} 5000
            a@10000 {"N":2,"X":12} 12000
            b@10000 {"N":1,"X":6} 16000
            Late s 0/6: late row at 9999 for window [0, 10000), closed at 11000
            Late s 0/9: late row at 14000 for window [10000, 20000), closed at 40000
        "#]],
    );
}

#[test]
fn final_sessions_are_emitted_once() {
    check(
        &counted(
            "CREATE TABLE O AS SELECT K, COUNT(*) AS N FROM S \
             WINDOW SESSION (2 SECONDS, GRACE PERIOD 0 SECONDS) GROUP BY K EMIT FINAL;",
        ),
        r#"
        s 1000 a {"V": 1}
        s 2000 a {"V": 2}
        s 2500 b {"V": 2}
        s 4500 a {"V": 4}
        restart
        s 8000 c {"V": 8}
        s 30000 c {"V": 16}
        "#,
        "O",
        expect![[r#"
            a@1000..2000 {"N":2} 2000
            b@2500..2500 {"N":1} 2500
            a@4500..4500 {"N":1} 4500
            c@8000..8000 {"N":1} 8000
        "#]],
    );
}
