// Package benchmarks measures the whole system: real peers as processes, each
// with its own disk, on this machine. Everything is measured side by side in one
// run, interleaved and repeated; what counts are ratios of medians, because
// machines are noisy. README.md says how to run the benchmarks and how to read
// them; the results of runs are kept in results.
//
// The benchmarks are slow and run only when asked:
//
//	go test ./benchmarks -run '^$' -bench . -benchtime 3x -timeout 1h
package benchmarks
