package taskrpc

import (
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// Bounds of messages, the same on both sides.
const (
	// MaxMessageBytes is the largest message: one result, or many small ones.
	// The gRPC server must accept messages of this size.
	MaxMessageBytes = 4 << 20
	// batchBytes is how much of results one message collects, a single larger
	// result excepted.
	batchBytes = 1 << 20
	// pieceBytes is the size of one piece of a content or an output.
	pieceBytes = 256 << 10
	// maxTasks bounds the tasks of one message.
	maxTasks = 1024
	// maxContentBytes bounds one content.
	maxContentBytes = tasks.MaxOutputBytes
	// maxEngineBytes and maxReasonBytes bound free text.
	maxEngineBytes = 256
	maxReasonBytes = tasks.MaxWhyBytes
)

// Bounds of what a worker keeps for callers.
const (
	// claimsMax and claimsPerCaller bound the open claims.
	claimsMax       = 256
	claimsPerCaller = 16
	// claimTasks bounds the tasks of a claim that have not been reported.
	claimTasks = 1 << 15
	// claimBytes bounds the arguments of the tasks of a claim that wait.
	claimBytes = 32 << 20
	// reportBytes of results that a caller does not fetch stop its tasks from
	// being started.
	reportBytes = 8 << 20
	// heldTasks bounds the tasks of a claim whose outputs are kept until the
	// caller releases them.
	heldTasks = 1 << 11
	// leftBytes of results, and leftClaims claims, are kept of callers who fell
	// silent.
	leftBytes  = 16 << 20
	leftClaims = 64
	// transfersPerCaller bounds the contents and outputs in transfer.
	transfersPerCaller = 16
)

// Times.
const (
	// transferIdle is how long a transfer may stand still.
	transferIdle = 30 * time.Second
	// shortTask: tasks shorter than this are handed to the runner in advance,
	// at most aheadMax per slot, so that its slots never wait for this side.
	shortTask = 5 * time.Millisecond
	aheadMax  = 16
	// sentFor is for how long a result that was reported is kept in case that its
	// caller is gone, if it took sentLeast to make.
	sentFor   = scheduler.LeaseTTL + scheduler.HeartbeatEvery
	sentLeast = time.Second
)
