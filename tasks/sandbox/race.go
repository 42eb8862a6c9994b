//go:build race

package sandbox

// raceEnabled says that the race detector is compiled in. Its shadow memory is
// larger than any limit on data.
const raceEnabled = true
