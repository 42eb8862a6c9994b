package scheduler

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"

	"gotong/grid"
	"gotong/tasks"
)

// How results are checked adaptively.
const (
	// checkedBy is how many sites must agree for a result to be checked.
	checkedBy = 2
	// checkedMost is how many sites run a task that is checked, at most, until
	// two agree.
	checkedMost = 5
	// trustAfter is how many checked results in a row must have been right
	// before one is taken unchecked.
	trustAfter = 10
	// checkFloor is the least share of results that is checked.
	checkFloor = 0.05
)

// judge decides how many sites must agree on a result.
type judge struct {
	verify tasks.Verify
	random *rand.Rand // unpredictable for workers
	trust  map[grid.PeerID]int
	caught map[grid.PeerID]bool
}

func newJudge(cfg Config) *judge {
	j := &judge{verify: cfg.Verify, trust: map[grid.PeerID]int{}, caught: map[grid.PeerID]bool{}}
	for peer, trust := range cfg.Trust {
		j.trust[peer] = max(0, trust)
		if trust < 0 {
			j.caught[peer] = true
		}
	}
	var seed [32]byte
	if cfg.Rand == nil {
		crand.Read(seed[:]) // never fails (crypto/rand)
	} else {
		for i := range 4 {
			binary.LittleEndian.PutUint64(seed[8*i:], cfg.Rand.Uint64())
		}
	}
	j.random = rand.New(rand.NewChaCha8(seed))
	return j
}

// adaptive reports whether results of trusted peers are taken unchecked.
func (j *judge) adaptive() bool { return j.verify.Mode == tasks.VerifyAdaptive }

// need returns how many sites must agree on a task of which peer gets the
// first copy.
func (j *judge) need(peer grid.PeerID) int {
	switch {
	case j.verify.Mode == tasks.VerifyQuorum:
		return j.verify.Need
	case j.verify.Mode == tasks.VerifyAdaptive && j.trust[peer] < trustAfter:
		return checkedBy
	}
	return 1
}

// most returns how many sites may be asked for one task.
func (j *judge) most() int {
	switch j.verify.Mode {
	case tasks.VerifyQuorum:
		return j.verify.Of
	case tasks.VerifyAdaptive:
		return checkedMost
	}
	return 1
}

// checks reports whether a result that would do alone is checked. This is
// decided when the worker has signed it, so a worker cannot tell.
func (j *judge) checks(b ballot) bool {
	return j.verify.Mode == tasks.VerifyAdaptive &&
		(b.measured || j.random.Float64() < checkShare(j.trust[b.vote.Peer]))
}

// confirm notes that the voters agree.
func (j *judge) confirm(votes []Vote) {
	for _, v := range votes {
		j.trust[v.Peer]++
	}
}

// trustIn returns what is thought of those whose results were compared; nothing
// when only one was.
func (j *judge) trustIn(ballots []ballot) map[grid.PeerID]int {
	if len(ballots) < checkedBy {
		return nil
	}
	out := map[grid.PeerID]int{}
	for _, b := range ballots {
		if !j.caught[b.vote.Peer] {
			out[b.vote.Peer] = j.trust[b.vote.Peer]
		}
	}
	return out
}

// doubt takes a peer's trust, for a result that others do not share and that
// is no proof of a lie.
func (j *judge) doubt(peer grid.PeerID) { j.trust[peer] = 0 }

// checkShare returns which share of the results of a peer is checked, given
// how many checked ones in a row were right: all until trustAfter, then
// trustAfter in so many, never less than checkFloor.
func checkShare(trust int) float64 {
	if trust < trustAfter {
		return 1
	}
	return max(checkFloor, trustAfter/float64(trust))
}
