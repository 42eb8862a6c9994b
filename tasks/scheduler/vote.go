package scheduler

import (
	"gotong/grid"
)

// Vote is what one peer says the result of a task is.
type Vote struct {
	Peer   grid.PeerID
	Site   string   // of the peer when it was claimed
	Result [32]byte // tasks.Result.Digest
	Engine string   // tasks.Result.Engine
	Proof  Proof    // the peer's signed word, with the result as it was sent
}

// Caught is a peer that gave a wrong result: others, on as many sites as the
// verification wants, agree on another. It gets no more tasks of the job.
type Caught struct {
	Task    int    // index
	Vote    Vote   // the wrong result
	Against []Vote // those who agree
	// Voided are the tasks of which a result of the peer was delivered that
	// nobody had checked. They run again and are delivered once more, with
	// Accepted.Replaces set. Results of the peer that others confirmed stand.
	Voided []int
}
