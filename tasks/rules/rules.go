package rules

import (
	"strings"
	"time"
)

// Rules are what a donor allows of a machine. Who may use it is not decided
// here.
type Rules struct {
	Slots int // pledged: tasks run at once
	Cores int // of the machine, at least 1

	CPU  Share         // of the cores; at least one slot is left
	Load Share         // of the cores that others' processes may keep busy; above it nothing runs
	Idle time.Duration // without input; 0: the user's presence does not matter

	Battery bool // run on battery too

	Hours     []string // windows in which tasks run; none: always
	Exclusive []string // programs besides which nothing runs

	MemoryInUse Share // of the machine's memory that guests may have while its user is there
	MemoryIdle  Share // else
	DiskFree    int64 // bytes that must be free
}

// Facts are what is known of a machine at one moment.
type Facts struct {
	Input  Input
	Load   Load
	Power  Power
	Memory Memory
	Disk   Disk
	// Programs that run and are exclusive; Blind says why they cannot be known.
	Exclusive []string
	Blind     string
	Pause     *Pause // nil: not paused
}

// Input says when the user of the machine last did something.
type Input struct {
	NoUser bool          // no seat and no input device: nobody can be there
	Known  bool          // Idle holds
	Idle   time.Duration // since the last input
	Source string        // where this comes from, in words
	Why    string        // why it is not known
}

// Load is what processes of others use: not this program's, not those that gave
// way to all others (nice 10 and above).
type Load struct {
	Known bool
	Cores float64 // busy on their behalf
}

// Power says what the machine runs on.
type Power struct {
	Known   bool
	Battery bool   // it is discharging
	Detail  string // in words
}

// Memory of the machine, in bytes.
type Memory struct {
	Known     bool
	Total     int64
	Available int64 // that new programs could have without others being pushed out
	Guests    int64 // that guests have now
	Short     bool  // guests were killed for it moments ago
}

// Disk is the file system on which tasks have their files.
type Disk struct {
	Known bool
	Free  int64
}

// Pause is a donor's word that nothing runs.
type Pause struct {
	Since time.Time
	Until time.Time // zero: until it is taken back
	By    string
}

// Over reports whether the pause has ended by itself.
func (p *Pause) Over(now time.Time) bool { return !p.Until.IsZero() && !now.Before(p.Until) }

// Decision says how many guests may run now.
type Decision struct {
	Slots int
	// Kill: guests that may not run must not even stay in memory.
	Kill bool
	// Reasons are the rules that take slots away, the strictest first.
	Reasons []Reason
}

// Reason is one rule that takes slots away.
type Reason struct {
	Rule  string // the key of the configuration below donate., or pause
	Slots int    // that it leaves
	Text  string // in words
	Kill  bool
}

// Why returns the reasons in words; empty when all slots are given.
func (d Decision) Why() string {
	var texts []string
	for _, r := range d.Reasons {
		if r.Slots <= d.Slots {
			texts = append(texts, r.Text)
		}
	}
	return strings.Join(texts, "; ")
}
