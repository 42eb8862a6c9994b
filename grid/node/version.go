package node

import "runtime/debug"

// release is the version of the program; a build from a checkout adds the
// revision.
const release = "0.1.0"

// Version returns the version of the program, with the revision when the build
// recorded one.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return release + "+" + s.Value[:12]
		}
	}
	return release
}
