package membership

// turn is a lock for work that waits for others or for time. A goroutine that
// waits for its turn waits on a channel, which may be given up, and which tests
// with a fake clock see.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take() { t <- struct{}{} }

func (t turn) give() { <-t }
