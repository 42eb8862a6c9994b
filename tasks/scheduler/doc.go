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
// Memory is bounded by Config.Window and Config.BufferBytes: a caller that
// takes results slowly slows the workers down.
package scheduler
