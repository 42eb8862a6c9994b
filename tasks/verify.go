package tasks

import (
	"fmt"
	"strconv"
	"strings"
)

// VerifyMode says how the results of a job are checked. The list is closed.
type VerifyMode string

// The modes of Verify.
const (
	// VerifyNone takes the first valid result of a worker at its word.
	VerifyNone VerifyMode = "none"
	// VerifyAdaptive has other sites repeat all tasks of a peer until it has
	// earned trust, then a random share of them.
	VerifyAdaptive VerifyMode = "adaptive"
	// VerifyQuorum accepts a result when so many distinct sites agree on it.
	VerifyQuorum VerifyMode = "quorum"
)

// MaxVotes bounds Verify.Of.
const MaxVotes = 15

// Verify is how the results of a job are checked. It is comparable; the zero
// value means VerifyNone.
type Verify struct {
	Mode VerifyMode
	Need int // VerifyQuorum: sites that must agree
	Of   int // VerifyQuorum: sites that are asked at most, until Need agree
}

// ParseVerify reads "none", "adaptive", "quorum=2/3" (two of at most three
// sites agree) or "quorum=2", which asks as many sites as leave no tie between
// two answers: 2 of 3, 3 of 5. The empty text is "none".
func ParseVerify(s string) (Verify, error) {
	switch VerifyMode(s) {
	case "", VerifyNone:
		return Verify{Mode: VerifyNone}, nil
	case VerifyAdaptive:
		return Verify{Mode: VerifyAdaptive}, nil
	}
	counts, ok := strings.CutPrefix(s, string(VerifyQuorum)+"=")
	if !ok {
		return Verify{}, fmt.Errorf("%w: verification %q is not none, adaptive or quorum=N/M", ErrInvalid, s)
	}
	need, of, both := strings.Cut(counts, "/")
	v := Verify{Mode: VerifyQuorum}
	var err error
	if v.Need, err = strconv.Atoi(need); err == nil && both {
		v.Of, err = strconv.Atoi(of)
	}
	if err != nil {
		return Verify{}, fmt.Errorf("%w: quorum %q is not a number of sites N or N/M", ErrInvalid, counts)
	}
	if !both {
		v.Of = min(2*v.Need-1, MaxVotes)
	}
	return v, v.Validate()
}

// String returns what ParseVerify reads.
func (v Verify) String() string {
	switch v.Mode {
	case VerifyQuorum:
		return fmt.Sprintf("%s=%d/%d", v.Mode, v.Need, v.Of)
	case "":
		return string(VerifyNone)
	}
	return string(v.Mode)
}

// Votes reports whether results are compared at all.
func (v Verify) Votes() bool { return v.Mode == VerifyQuorum || v.Mode == VerifyAdaptive }

// Validate reports a mode outside the list or counts out of bounds.
func (v Verify) Validate() error {
	switch v.Mode {
	case "", VerifyNone, VerifyAdaptive:
		if v.Need != 0 || v.Of != 0 {
			return fmt.Errorf("%w: verification %s has no counts", ErrInvalid, v.Mode)
		}
		return nil
	case VerifyQuorum:
	default:
		return fmt.Errorf("%w: unknown verification %q", ErrInvalid, v.Mode)
	}
	if v.Need < 2 || v.Need > v.Of || v.Of > MaxVotes {
		return fmt.Errorf("%w: quorum %d of %d: want at least 2, of at most %d sites", ErrInvalid, v.Need, v.Of, MaxVotes)
	}
	return nil
}
