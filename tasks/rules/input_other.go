//go:build !linux

package rules

import (
	"fmt"
	"runtime"
	"time"
)

// readTime: there are no terminals below /dev to look at, or they keep no time.
func readTime(string) (time.Time, bool) { return time.Time{}, false }

// openSource: only a file tells of the user here.
func openSource(name string, _ SensorsConfig) (source, func()) {
	if ownSource(name) {
		return func() (stamp, error) {
			return stamp{}, fmt.Errorf("on %s the last input is not known: let donate.idle_source be a file that something touches, or donate.idle 0s", runtime.GOOS)
		}, func() {}
	}
	return fileSource(name), func() {}
}
