;; A module that grows a table until it is refused: memory that is no linear
;; memory. It traps when the table has a million entries or fewer then.
(module
  (table $t 1 externref)
  (func (export "_start")
    (loop $again
      (br_if $again
        (i32.ne (i32.const -1) (table.grow $t (ref.null extern) (i32.const 1000)))))
    (if (i32.gt_u (table.size $t) (i32.const 1048576)) (then unreachable))))
