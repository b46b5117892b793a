//! The pure parts by time. By instructions, whatever the machine is doing: `oncelog-bench instructions`.

use oncelog_bench::pure::OPERATIONS;

fn main() {
    divan::main();
}

#[divan::bench(args = OPERATIONS.iter().map(|operation| operation.name))]
fn pure(bencher: divan::Bencher, name: &str) {
    let operation = OPERATIONS.iter().find(|operation| operation.name == name).expect("it was taken from the table");
    let once = (operation.make)();
    bencher.bench_local(once);
}
