//go:build !race

package sandbox

// raceEnabled says that the race detector is compiled in.
const raceEnabled = false
