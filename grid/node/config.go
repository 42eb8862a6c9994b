package node

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/shardstore"
	"gotong/tasks/keeper"
	"gotong/tasks/remember"
	"gotong/tasks/sandbox"
	"gotong/tasks/worker"
)

// Size is a number of bytes that is written and read with a unit: 200GB is
// 200·10⁹, 200GiB is 200·2³⁰.
type Size uint64

// shortSize is the longest exact text that people still read at a glance.
const shortSize = 6

// String returns the size as people read it: exact when that is short, else
// rounded, with a decimal unit.
func (s Size) String() string {
	if exact, _ := s.MarshalText(); len(exact) <= shortSize { // never an error
		return string(exact)
	}
	return strings.ReplaceAll(humanize.Bytes(uint64(s)), " ", "")
}

// MarshalText implements encoding.TextMarshaler. It is exact: a size that no
// whole number of a unit gives is written in bytes.
func (s Size) MarshalText() ([]byte, error) {
	for _, unit := range []struct {
		bytes uint64
		name  string
	}{{1e12, "TB"}, {1e9, "GB"}, {1 << 30, "GiB"}, {1e6, "MB"}, {1 << 20, "MiB"}, {1e3, "kB"}} {
		if s > 0 && uint64(s)%unit.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", uint64(s)/unit.bytes, unit.name), nil
		}
	}
	return fmt.Appendf(nil, "%dB", uint64(s)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil {
		return fmt.Errorf("size %q: want a number with a unit, such as 200GB or 200GiB", text)
	}
	*s = Size(n)
	return nil
}

// Config is everything that a user may set for one peer. The zero value is not
// valid; start from DefaultConfig. The keys of the configuration file are the
// mapstructure names joined by dots.
type Config struct {
	Name       string   `mapstructure:"name"`       // what others see; empty: the host name
	Site       string   `mapstructure:"site"`       // failure domain; empty: the owner
	Listen     string   `mapstructure:"listen"`     // HOST:PORT of the one port
	Advertise  []string `mapstructure:"advertise"`  // HOST:PORT that others should dial, besides what is found
	Give       Size     `mapstructure:"give"`       // raw bytes pledged to others
	Slots      int      `mapstructure:"slots"`      // tasks run at once, for others and oneself
	Redundancy string   `mapstructure:"redundancy"` // auto or K+M

	Discovery DiscoveryConfig `mapstructure:"discovery"`
	Gossip    GossipConfig    `mapstructure:"gossip"`
	Network   NetworkConfig   `mapstructure:"network"`
	Store     StoreConfig     `mapstructure:"store"`
	Backup    BackupConfig    `mapstructure:"backup"`
	Tasks     TasksConfig     `mapstructure:"tasks"`
	Donate    DonateConfig    `mapstructure:"donate"`
	Retention RetentionConfig `mapstructure:"retention"`
	Repair    RepairConfig    `mapstructure:"repair"`
	Audit     AuditConfig     `mapstructure:"audit"`
	Scrub     ScrubConfig     `mapstructure:"scrub"`
	Drill     DrillConfig     `mapstructure:"drill"`
	Log       LogConfig       `mapstructure:"log"`
}

// DiscoveryConfig says how addresses of members are found besides gossip.
type DiscoveryConfig struct {
	MDNS bool `mapstructure:"mdns"` // offer and look for addresses on the local network
}

// GossipConfig tunes failure detection.
type GossipConfig struct {
	Preset string `mapstructure:"preset"` // lan, wan or local
}

// StoreConfig bounds what the shard store may do to the donor's disk.
type StoreConfig struct {
	KeepFree  Size     `mapstructure:"keep_free"`  // never fill the disk further than this
	FairShare bool     `mapstructure:"fair_share"` // an owner may keep here what follows from what it gives
	Allowance Size     `mapstructure:"allowance"`  // besides its fair share, for every owner
	Owners    []string `mapstructure:"owners"`     // NAME_OR_ID=SIZE: the limit of one owner instead
}

// TasksConfig bounds what a guest may use on this machine.
type TasksConfig struct {
	KeepJobs    int           `mapstructure:"keep_jobs"`    // jobs kept here for others and oneself; 0: none
	KeepBytes   Size          `mapstructure:"keep_bytes"`   // plans and journals of all of them
	KeeperLease time.Duration `mapstructure:"keeper_lease"` // silence after which another keeper drives a job
	KeeperGrace time.Duration `mapstructure:"keeper_grace"` // absence after which a keeper is replaced
	OrphanGrace time.Duration `mapstructure:"orphan_grace"` // how long tasks go on here when the keeper that drives their job is silent; 0: not at all
	Retention   time.Duration `mapstructure:"retention"`    // how long a job is kept after its end
	MaxMemory   Size          `mapstructure:"max_memory"`   // of one guest
	MaxTimeout  time.Duration `mapstructure:"max_timeout"`  // of one task
	CacheBytes  Size          `mapstructure:"cache_bytes"`  // modules and inputs kept for later tasks

	RememberBytes Size `mapstructure:"remember_bytes"` // results of this owner's tasks; 0: none

	CompileCache Size   `mapstructure:"compile_cache"` // machine code of modules; 0: each sandbox compiles
	Cgroup       string `mapstructure:"cgroup"`        // auto, off, or a delegated cgroup v2 directory
}

// RetentionConfig says how long data stays that is no longer wanted.
type RetentionConfig struct {
	Floor     time.Duration `mapstructure:"floor"`     // holders keep what this peer deleted at least this long
	Removed   time.Duration `mapstructure:"removed"`   // running time after which what removed owners have here is freed
	Deletions time.Duration `mapstructure:"deletions"` // running time for which deletions are remembered
}

// LogConfig says what the peer writes to standard error.
type LogConfig struct {
	Level  string `mapstructure:"level"`  // debug, info, warn or error
	Format string `mapstructure:"format"` // text or json
}

// DefaultConfig returns the documented defaults. Give, Slots and Listen are
// filled in by init and join, which look at the machine.
func DefaultConfig() Config {
	return Config{
		Redundancy: "auto",
		Discovery:  DiscoveryConfig{MDNS: true},
		Gossip:     GossipConfig{Preset: "lan"},
		Store:      StoreConfig{KeepFree: 1e9, FairShare: true, Allowance: 1e9},
		Backup:     BackupConfig{Spool: segments.DefaultSpoolBytes},
		Tasks: TasksConfig{MaxMemory: 1 << 30, MaxTimeout: time.Hour, CacheBytes: 2e9, RememberBytes: 256e6, CompileCache: 1e9, Cgroup: worker.CgroupAuto,
			KeepJobs: keeper.DefaultJobs, KeepBytes: keeper.DefaultBytes, KeeperLease: keeper.DefaultLease, KeeperGrace: keeper.DefaultGrace, OrphanGrace: defaultOrphanGrace, Retention: keeper.DefaultRetention,
		},
		Donate:    defaultDonate(),
		Retention: RetentionConfig{Floor: 7 * 24 * time.Hour, Removed: 30 * 24 * time.Hour, Deletions: shardstore.DefaultKeepDeletions},
		Repair:    RepairConfig{Grace: 24 * time.Hour, Interval: 15 * time.Minute},
		Audit:     AuditConfig{Interval: 6 * time.Hour, Groups: 4},
		Scrub:     ScrubConfig{Every: 30 * 24 * time.Hour},
		Drill:     DrillConfig{Every: 30 * 24 * time.Hour, Files: defaultDrill},
		Log:       LogConfig{Level: "info", Format: "text"},
	}
}

// cgroupOff leaves sandboxes in the peer's own cgroup.
const cgroupOff = "off"

// maxSlots bounds Slots; a larger number is a typing error.
const maxSlots = 4096

// Validate returns all faults at once, each with the key it concerns.
func (c Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: "+format, append([]any{key}, args...)...))
	}
	for _, label := range []struct{ key, text string }{{"name", c.Name}, {"site", c.Site}} {
		if err := checkLabel(label.text); err != nil {
			fault(label.key, "%w", err)
		}
	}
	if c.Listen != "" {
		if _, port, err := net.SplitHostPort(c.Listen); err != nil || !isPort(port) {
			fault("listen", "%q is not HOST:PORT", c.Listen)
		}
	}
	if len(c.Advertise) > grid.MaxAddresses {
		fault("advertise", "more than %d addresses", grid.MaxAddresses)
	}
	for _, address := range c.Advertise {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "0" || !isPort(port) || len(address) > grid.MaxAddressLen {
			fault("advertise", "%q is not HOST:PORT", address)
		}
	}
	if c.Slots < 0 || c.Slots > maxSlots {
		fault("slots", "%d is not between 0 and %d", c.Slots, maxSlots)
	}
	if _, err := storage.ParseRedundancy(c.Redundancy); err != nil {
		fault("redundancy", "%w", err)
	}
	oneOf := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			fault(key, "%q is not one of %s", value, strings.Join(allowed, ", "))
		}
	}
	oneOf("gossip.preset", c.Gossip.Preset, "lan", "wan", "local")
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "text", "json")
	if c.Tasks.RememberBytes != 0 && c.Tasks.RememberBytes < remember.MinBytes {
		fault("tasks.remember_bytes", "%s is less than %s", c.Tasks.RememberBytes, Size(remember.MinBytes))
	}
	if c.Tasks.CompileCache != 0 && c.Tasks.CompileCache < sandbox.MinCacheBytes {
		fault("tasks.compile_cache", "%s is less than %s", c.Tasks.CompileCache, Size(sandbox.MinCacheBytes))
	}
	if v := c.Tasks.Cgroup; v != worker.CgroupAuto && v != cgroupOff && !filepath.IsAbs(v) {
		fault("tasks.cgroup", "%q is not auto, off or an absolute path", v)
	}
	if c.Tasks.MaxMemory < 1<<20 {
		fault("tasks.max_memory", "%s is less than 1MiB", c.Tasks.MaxMemory)
	}
	if c.Tasks.MaxTimeout <= 0 {
		fault("tasks.max_timeout", "%s is not positive", c.Tasks.MaxTimeout)
	}
	c.Tasks.validateKeeper(fault)
	if c.Drill.Every < 0 {
		fault("drill.every", "%s is negative", c.Drill.Every)
	}
	if c.Drill.Files < 1 || c.Drill.Files > maxDrill {
		fault("drill.files", "%d is not between 1 and %d", c.Drill.Files, maxDrill)
	}
	if c.Retention.Deletions <= 0 {
		fault("retention.deletions", "%s is not positive", c.Retention.Deletions)
	}
	if c.Retention.Floor < 0 {
		fault("retention.floor", "%s is negative", c.Retention.Floor)
	}
	for _, limit := range c.Store.Owners {
		if _, _, err := ParseOwnerLimit(limit); err != nil {
			fault("store.owners", "%w", err)
		}
	}
	c.Network.validate(fault)
	c.Backup.validate(fault)
	c.Donate.validate(fault)
	c.validateRepair(fault)
	return errors.Join(faults...)
}

// checkLabel says what keeps a text from being a name that others show.
func checkLabel(text string) error {
	switch {
	case len(text) > grid.MaxNameLen:
		return fmt.Errorf("longer than %d bytes", grid.MaxNameLen)
	case !utf8.ValidString(text):
		return fmt.Errorf("%q is not UTF-8", text)
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%q has characters that cannot be shown", text)
	}
	return nil
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}
