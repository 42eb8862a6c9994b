;; A module that traps.
(module (func (export "_start") unreachable))
