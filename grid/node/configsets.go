package node

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/adhocore/gronx"

	"gotong/storage"
	"gotong/storage/snapshot"
)

// BackupConfig says what this peer backs up by itself.
type BackupConfig struct {
	Sets  map[string]SetConfig `mapstructure:"sets"`  // by name; see checkSetName
	Spool Size                 `mapstructure:"spool"` // of segments that wait here for their missing shards; 0: none
}

// SetConfig is one named backup set: what belongs to it, when the peer backs it
// up, and which of its snapshots are kept.
type SetConfig struct {
	Paths            []string `mapstructure:"paths"`              // absolute, or below ~/
	Exclude          []string `mapstructure:"exclude"`            // lines as in .gitignore
	ExcludeFiles     []string `mapstructure:"exclude_files"`      // files of such lines, read at each run
	ExcludeCaches    bool     `mapstructure:"exclude_caches"`     // directories with a CACHEDIR.TAG
	ExcludeIfPresent []string `mapstructure:"exclude_if_present"` // directories that have an entry of that name
	OneFileSystem    bool     `mapstructure:"one_file_system"`
	Tags             []string `mapstructure:"tags"`
	Redundancy       string   `mapstructure:"redundancy"` // empty: that of the peer

	Every Period     `mapstructure:"every"` // age of the last run at which the next is due; 0: none
	Cron  string     `mapstructure:"cron"`  // or: minute hour day month weekday, in local time
	Keep  KeepConfig `mapstructure:"keep"`  // all zero: everything is kept
}

// KeepConfig says which snapshots of a set survive the forget that follows each
// scheduled run.
type KeepConfig struct {
	Last    int      `mapstructure:"last"`
	Hourly  int      `mapstructure:"hourly"`
	Daily   int      `mapstructure:"daily"`
	Weekly  int      `mapstructure:"weekly"`
	Monthly int      `mapstructure:"monthly"`
	Yearly  int      `mapstructure:"yearly"`
	Within  string   `mapstructure:"within"` // calendar time such as 1y6m7d12h
	Tags    []string `mapstructure:"tags"`
}

// IsZero reports whether nothing is ever forgotten.
func (k KeepConfig) IsZero() bool {
	return k.Last == 0 && k.Hourly == 0 && k.Daily == 0 && k.Weekly == 0 && k.Monthly == 0 && k.Yearly == 0 && k.Within == "" && len(k.Tags) == 0
}

// scheduled reports whether the peer runs the set by itself.
func (c SetConfig) scheduled() bool { return c.Every > 0 || c.Cron != "" }

// Period is a time that is written with units of days (d), weeks (w) and years
// (y) besides those of Go: 90m, 6h, 30d, 1y. A day has 24 hours, a year 365 days.
type Period time.Duration

var (
	periodPart  = regexp.MustCompile(`^([0-9]{1,6})(y|w|d)`)
	periodUnits = map[string]time.Duration{"y": 365 * 24 * time.Hour, "w": 7 * 24 * time.Hour, "d": 24 * time.Hour}
)

// maxPeriod bounds a Period; it is far from where durations overflow.
const maxPeriod = 200 * 365 * 24 * time.Hour

// ParsePeriod reads a Period.
func ParsePeriod(text string) (Period, error) {
	var sum time.Duration
	rest := text
	for m := periodPart.FindStringSubmatch(rest); m != nil; m = periodPart.FindStringSubmatch(rest) {
		n, _ := strconv.Atoi(m[1]) // digits, few of them
		if n > int((maxPeriod-sum)/periodUnits[m[2]]) {
			return 0, fmt.Errorf("period %q is too long", text)
		}
		sum += time.Duration(n) * periodUnits[m[2]]
		if rest = rest[len(m[0]):]; rest == "" {
			break
		}
	}
	if rest != "" || text == "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return 0, fmt.Errorf("period %q: want a number with a unit, such as 6h, 30d or 1y", text)
		}
		if d > maxPeriod-sum {
			return 0, fmt.Errorf("period %q is too long", text)
		}
		sum += d
	}
	return Period(sum), nil
}

// String writes whole days as days.
func (p Period) String() string {
	const day = 24 * time.Hour
	if d := time.Duration(p); d > 0 && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	text := time.Duration(p).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// MarshalText implements encoding.TextMarshaler.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Period) UnmarshalText(text []byte) error {
	parsed, err := ParsePeriod(string(text))
	if err == nil {
		*p = parsed
	}
	return err
}

var setName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// maxSets bounds the sets of one peer, maxSetPaths the paths of one set.
const (
	maxSets     = 64
	maxSetPaths = 1024
	minEvery    = Period(time.Second)
)

// validate returns all faults of the sets, each with its key.
func (c BackupConfig) validate(fault func(key, format string, args ...any)) {
	if len(c.Sets) > maxSets {
		fault("backup.sets", "more than %d", maxSets)
	}
	for _, name := range c.SetNames() {
		set, key := c.Sets[name], "backup.sets."+name
		if !setName.MatchString(name) {
			fault(key, "the name of a set has up to 32 lower-case letters, digits, - and _")
		}
		set.validate(func(field, format string, args ...any) { fault(key+"."+field, format, args...) })
	}
}

// SetNames returns the names of the sets, sorted.
func (c BackupConfig) SetNames() []string {
	names := make([]string, 0, len(c.Sets))
	for name := range c.Sets {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (c SetConfig) validate(fault func(field, format string, args ...any)) {
	if len(c.Paths) == 0 {
		fault("paths", "there is none: name what to back up")
	}
	if len(c.Paths) > maxSetPaths {
		fault("paths", "more than %d", maxSetPaths)
	}
	for _, list := range []struct {
		field string
		paths []string
	}{{"paths", c.Paths}, {"exclude_files", c.ExcludeFiles}} {
		for _, path := range list.paths {
			if !filepath.IsAbs(path) && path != "~" && !strings.HasPrefix(path, "~/") {
				fault(list.field, "%q is neither absolute nor below ~/", path)
			}
		}
	}
	for _, name := range c.ExcludeIfPresent {
		if name == "" || strings.ContainsAny(name, `/\`) {
			fault("exclude_if_present", "%q is not the name of an entry", name)
		}
	}
	if c.Redundancy != "" {
		if _, err := storage.ParseRedundancy(c.Redundancy); err != nil {
			fault("redundancy", "%w", err)
		}
	}
	for _, tag := range slices.Concat(c.Tags, c.Keep.Tags) {
		if err := CheckTag(tag); err != nil {
			fault("tags", "%w", err)
		}
	}
	switch {
	case c.Every != 0 && c.Cron != "":
		fault("cron", "either every or cron, not both")
	case c.Every != 0 && c.Every < minEvery:
		fault("every", "%s is less than %s", c.Every, minEvery)
	case c.Cron != "" && !validCron(c.Cron):
		fault("cron", "%q: want minute hour day month weekday, such as \"0 3 * * *\"", c.Cron)
	}
	k := c.Keep
	if k.Within != "" {
		if _, err := snapshot.ParsePeriod(k.Within); err != nil {
			fault("keep.within", "%w", err)
		}
	}
	for _, n := range []int{k.Last, k.Hourly, k.Daily, k.Weekly, k.Monthly, k.Yearly} {
		if n < 0 {
			fault("keep", "%d is negative", n)
		}
	}
}

// validCron reports whether an expression has five fields (or is a word such as
// @daily) and is ever due.
func validCron(expression string) bool {
	if fields := len(strings.Fields(expression)); fields != 5 && !(fields == 1 && strings.HasPrefix(expression, "@")) {
		return false
	}
	if !gronx.IsValid(expression) {
		return false
	}
	_, err := gronx.NextTickAfter(expression, time.Now(), false)
	return err == nil
}

// maxTagBytes bounds one tag.
const maxTagBytes = 64

// CheckTag says what keeps a text from being a tag of a snapshot.
func CheckTag(tag string) error {
	if tag == "" || len(tag) > maxTagBytes || strings.ContainsAny(tag, ", ") {
		return fmt.Errorf("tag %q: want 1 to %d bytes without commas and blanks", tag, maxTagBytes)
	}
	return checkLabel(tag)
}

// expandPath replaces ~ by the directory of the user who runs the peer.
func expandPath(path string) (string, error) {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return filepath.Join(user, path[1:]), nil
}
