package cli

import "os"

// hangups returns nil: there is no such signal here.
func hangups() <-chan os.Signal { return nil }
