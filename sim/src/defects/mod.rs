//! Tries out each deliberate defect: who catches it, and after how much work. One that somebody lets pass makes this fail.
//!
//! | module | owns |
//! |---|---|
//! | `judges` | who has to catch which defect |
//! | `trial` | one defect before one judge |

mod judges;
mod trial;

use std::io::{self, Write};

use oncelog_defects::Defect;
use trial::Court;

use crate::campaign::{now, say};

/// Tries these defects out, or all of them, and prints a table; true: each was caught by everybody who has to.
pub(crate) fn run(only: &[Defect]) -> anyhow::Result<bool> {
    let began = now();
    let mut court = Court::open()?;
    say(HEAD);
    let mut missed = 0;
    for defect in Defect::ALL.iter().filter(|defect| only.is_empty() || only.contains(defect)) {
        let mut found = Vec::new();
        for judge in judges::of(*defect) {
            found.push(match court.hold(*defect, &judge) {
                Ok(Some(caught)) => caught,
                Ok(None) => {
                    missed += 1;
                    format!("**missed** by {judge}")
                }
                // The others may be right all the same.
                Err(error) => {
                    missed += 1;
                    format!("**not judged** by {judge}: {error:#}")
                }
            });
        }
        say(&format!("| `{defect}` | {} | {} | {} |", defect.about(), defect.rule(), found.join("; ")));
    }
    let seconds = (now() - began).as_secs();
    let _ = writeln!(io::stderr(), "{missed} missed; {seconds} s");
    Ok(missed == 0)
}

const HEAD: &str = "\
# Deliberate defects, and who catches them

Each defect is compiled in on purpose, at the place where the rule lives, and switched on by its name; what is shipped has none of them. A
number of seeds says after how many runs of the simulation, from seed 1 on, the first one fails, and by which promise (I1 to I8) the
checker accuses it. This page is the output of

```sh
cargo run --release -p oncelog-sim --features deliberate-defects -- --defects > sim/DEFECTS.md
```

| defect | what is wrong | breaks | caught by |
|---|---|---|---|";
