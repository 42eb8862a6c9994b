package native

import (
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
)

// Engine says what runs commands on this machine: system, processor, distribution
// and its release, such as native/linux/amd64/debian-13. Results are comparable
// within one engine: other releases have other versions of every program.
var Engine = sync.OnceValue(func() string {
	return "native/" + runtime.GOOS + "/" + runtime.GOARCH + "/" + release()
})

// Bounds of what is read of a system's name.
const (
	maxReleaseFile = 64 << 10
	maxReleasePart = 48
)

// release names the distribution, by the file that os-release(5) describes.
func release() string {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(f, maxReleaseFile))
		f.Close()
		if err == nil {
			return parseRelease(string(text))
		}
	}
	return "unknown"
}

// parseRelease returns ID and VERSION_ID of an os-release, else ID alone: a
// distribution without versions is another every day, as a version may be.
func parseRelease(text string) string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = plain(strings.Trim(value, `"'`))
	}
	switch id, version := values["ID"], values["VERSION_ID"]; {
	case id == "":
		return "unknown"
	case version == "":
		return id
	default:
		return id + "-" + version
	}
}

// plain leaves of s what a name of an engine may have.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._-", r) {
			return r
		}
		return -1
	}, strings.ToLower(s))
	return s[:min(len(s), maxReleasePart)]
}
