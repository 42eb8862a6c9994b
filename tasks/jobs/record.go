package jobs

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/grid/identity"
	"gotong/tasks"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// Bounds of a record.
const (
	// MaxRecordBytes bounds an encoded record, so that it fits one message.
	MaxRecordBytes = 3<<20 + 768<<10
	// MaxRecordResults bounds the results of one record, evidence and votes
	// included.
	MaxRecordResults = 8192
	// MaxWhyBytes bounds reasons.
	MaxWhyBytes = 1 << 10
	// maxRanges bounds Retried of one record.
	maxRanges = 1 << 16
	// maxTried bounds Tried and Lost of one record, maxRuns the runs of a task.
	maxTried = 4096
	maxRuns  = 1 << 20
	// maxRecordPeers bounds the peers that one record names.
	maxRecordPeers = 4096
	// maxRevision bounds Result.Revision.
	maxRevision = 1 << 20
	// maxVotes bounds the votes of one result.
	maxVotes = 32
	// maxSiteBytes bounds Result.Site.
	maxSiteBytes = 128
)

// Record is what a driver of a job writes into its journal at once. What it
// says holds in whatever order the records of a job are read.
type Record struct {
	Epoch  uint64      // of the driver; a later driver has a higher one
	Driver grid.PeerID // who wrote it
	At     time.Time
	// Generation counts how often ended tasks were begun anew. Results of a
	// lower generation than the one in which their task was begun anew do not
	// count.
	Generation uint32

	Begun     bool       // the driver begins
	Results   []Result   // accepted
	Evidence  []Result   // signed, and found wrong
	Trust     []Trust    // what the driver thinks of workers now
	Tried     []Tried    // these failed, and were run again
	Lost      []Tried    // these were lost with their workers, and were run again
	Retried   []Range    // these tasks are to be run again, in this generation
	Cancelled *Cancelled // the owner no longer wants the job
	Ended     *Ended
}

// Result is how a task ended, with the worker's word for it.
type Result struct {
	Index int // of the task in the job
	State tasks.State
	Peer  grid.PeerID // who ran it; zero: nobody
	Site  string      // of Peer, where that counts
	Raw   []byte      // encoded as taskrpc.EncodeResult does
	// Batch and Position are the worker's signature; nil: nobody signed it.
	Batch    *Batch
	Position int
	Attempts int
	Checked  bool     // others were asked and agreed
	Votes    []Result // of those who agreed
	// Remembered: nothing ran. Peer, which is of the job's owner, vouches for what
	// it remembers of another job.
	Remembered bool
	// Revision counts the results of the task that stood before and were found
	// unsound, in this generation.
	Revision uint32
}

// Batch is a worker's signature over the results of one message.
type Batch struct {
	Key       ed25519.PublicKey
	Signature []byte
	Hashes    []byte // BLAKE3 hashes of the encoded results, joined
}

// TrustCaught is the value of a worker that gave a wrong result.
const TrustCaught = -1

// Trust is what a driver thinks of a worker: how many of its results in a row
// were found right.
type Trust struct {
	Peer  grid.PeerID
	Value int
}

// Tried says how many runs of a task brought no result in the generation of its
// record, when it was run once more.
type Tried struct{ Index, Runs int }

// Range is Count indexes from From on.
type Range struct{ From, Count int }

// Cancelled says that the owner no longer wants the job.
type Cancelled struct{ Why string }

// Ended says how the job ended.
type Ended struct {
	Done bool // else it failed
	Why  string
}

// newResult returns the record of an accepted result of the task with this
// index in the job.
func newResult(a *scheduler.Accepted, index int) (Result, error) {
	r := Result{
		Index: index, State: a.State, Peer: a.Peer, Attempts: a.Attempts, Checked: a.Checked,
	}
	for _, v := range a.Votes {
		if v.Peer == a.Peer {
			r.Site = v.Site
			continue
		}
		vote, err := newVote(v, index)
		if err != nil {
			return r, err
		}
		r.Votes = append(r.Votes, vote)
	}
	if len(a.Proof.Raw) > 0 {
		r.prove(a.Proof)
		return r, nil
	}
	out := a.Result
	out.Task.Index = index
	raw, err := taskrpc.EncodeResult(out, [32]byte{})
	r.Raw, r.Peer = raw, grid.PeerID{}
	return r, err
}

// newVote returns the record of what one peer said of a task.
func newVote(v scheduler.Vote, index int) (Result, error) {
	out, _, err := taskrpc.DecodeResult(v.Proof.Raw)
	if err != nil {
		return Result{}, err
	}
	r := Result{Index: index, State: out.State, Peer: v.Peer, Site: v.Site}
	r.prove(v.Proof)
	return r, nil
}

func (r *Result) prove(p scheduler.Proof) {
	r.Raw, r.Position = p.Raw, p.Position
	r.Batch = &Batch{p.Signed.Key, p.Signed.Signature, p.Signed.Body}
}

// proof returns the worker's word as the scheduler has it.
func (r Result) proof() scheduler.Proof {
	if r.Batch == nil {
		return scheduler.Proof{}
	}
	return scheduler.Proof{
		Signed:   identity.Signed{Key: r.Batch.Key, Signature: r.Batch.Signature, Body: r.Batch.Hashes},
		Position: r.Position, Raw: r.Raw,
	}
}

// Decode returns the result itself.
func (r Result) Decode() (tasks.Result, error) {
	out, _, err := taskrpc.DecodeResult(r.Raw)
	if err != nil {
		return out, err
	}
	out.Peer = r.Peer
	if out.Task.Index != r.Index || out.State != r.State {
		return out, invalid("result of task %d in state %s stands under task %d in state %s", out.Task.Index, out.State, r.Index, r.State)
	}
	return out, nil
}

// Verify returns nil when the worker that the record names signed this result,
// for this task of this job, or when nobody ran the task. It does not say that the worker was honest.
func (r Result) Verify(job tasks.JobID) error {
	out, err := r.Decode()
	switch {
	case err != nil:
		return err
	case out.Task.Job != job:
		return invalid("result of another job")
	case r.Batch == nil && (!r.Peer.IsZero() || r.State == tasks.StateDone):
		return fmt.Errorf("result of task %d without a signature: %w", r.Index, identity.ErrBadSignature)
	case r.Batch == nil:
		return nil
	}
	return r.proof().Verify(r.Peer)
}

// id returns the hash of the encoded result.
func (r Result) id() [hashBytes]byte { return blake3.Sum256(r.Raw) }
