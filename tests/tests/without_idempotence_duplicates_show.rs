//! The counter-check: the same run without idempotence. If it showed no duplicates, the run would be too gentle, and the test
//! beside this one would prove nothing.

use oncelog_tests::ordeal;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_run_without_idempotence_has_duplicates() {
    let ordeal = ordeal::run(&["--enable-idempotence=false"]).await.expect("every record is acknowledged");
    eprintln!("{} kills, {} records twice or more", ordeal.kills, ordeal.verdict.duplicated.len());
    assert!(!ordeal.verdict.duplicated.is_empty(), "no duplicates after {} kills: the run is too gentle", ordeal.kills);
    // At least once is what retries alone can do.
    assert!(ordeal.verdict.missing.is_empty() && ordeal.verdict.strange.is_empty(), "{:?}", ordeal.verdict);
}
