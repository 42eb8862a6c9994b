// Package guests holds small WASI preview 1 programs: the useful ones that
// demonstrations and benchmarks run, and hostile ones that show what the
// sandbox refuses. The C sources are in src, each with a comment that says how
// it is called; build.sh rebuilds the modules in wasm byte for byte.
package guests

import (
	"embed"
	"path"
)

//go:embed wasm/*.wasm
var files embed.FS

// The guests. Useful: Noop, Echo, Cat, Exit, Facts, Outfile, Sleep, Wordcount.
// Greedy or hostile: Escape, Fill, Flood, Fork, Hog, Recurse, Socket, Spin.
const (
	Noop      = "noop"      // does nothing
	Echo      = "echo"      // ARGS...: prints them
	Cat       = "cat"       // FILES...: prints inputs
	Exit      = "exit"      // CODE [TEXT]: TEXT on standard error, then CODE
	Facts     = "facts"     // prints arguments, environment, clocks, random bytes
	Outfile   = "outfile"   // NAME [TEXT [TIMES]]: writes /out/NAME
	Sleep     = "sleep"     // MILLISECONDS: waits on the clock
	Wordcount = "wordcount" // FILE SLICE SLICES: "count word" lines, sums exact

	Escape  = "escape"  // tries to reach files outside; exit code 1 if it did
	Fill    = "fill"    // [bytes|files|dirs]: fills /out without end
	Flood   = "flood"   // [BYTES [FD]]: floods standard output
	Fork    = "fork"    // imports fork and execve from its host
	Hog     = "hog"     // takes memory until refused
	Recurse = "recurse" // calls itself without end
	Socket  = "socket"  // tries every socket call; exit code 1 if one worked
	Spin    = "spin"    // [MILLIONS]: computes, without end or so many million steps
)

// Module returns the WASM bytes of a guest; the caller may keep and change
// them. It panics on a name that is not one of the constants.
func Module(name string) []byte {
	module, err := files.ReadFile(path.Join("wasm", name+".wasm"))
	if err != nil {
		panic("guests: no module named " + name)
	}
	return module
}
