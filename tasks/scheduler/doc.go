// Package scheduler drives one job: it finds workers among the live peers,
// hands them tasks in chunks, runs elsewhere what a worker lost, and gives each
// task's result to the caller exactly once.
//
// There is no coordinator. Run sees all peers (Pool), compares two random
// candidates at a time, claims slots of the better one, and keeps the claim
// for many tasks. The worker is the arbiter of its slots: it grants or refuses,
// with a reason in words. A claim is a lease: each side sends something every
// HeartbeatEvery, and LeaseTTL of silence ends it.
//
// Tasks run at least once, results are accepted at most once. A task whose
// worker died, fell silent, gave it back or lost it runs again, on another peer
// if there is one, at most MaxAttempts times; then it ends as tasks.StateLost
// with the reason. When nothing is left to hand out and slots are idle, the
// longest running tasks are started a second time on another site, and the
// first valid result wins.
//
// Under Header.Outlive a worker whose caller falls silent goes on with what it
// runs. Whoever claims it next, the same caller or another that drives the job
// after it, hears which tasks these are and has them first (left.go); with
// Config.Reclaim such workers are looked for before anything is begun.
//
// Config.Verify has results compared (vote.go). A task runs on distinct sites
// until as many agree on the digest of its result as the verification wants:
// always that many for a quorum; with tasks.VerifyAdaptive two for peers that
// have not earned trust and for a random share of the results of those that
// have, one otherwise. Until then results are held. A peer that differs from
// those who agree is caught: its word is kept as evidence, it gets no more
// tasks, and what it said alone is void. A result that was delivered unchecked
// and is voided later is delivered once more, with Accepted.Replaces; each task
// has one standing result at any time.
//
// Memory is bounded by Config.Window and Config.BufferBytes: a caller that
// takes results slowly slows the workers down.
package scheduler
