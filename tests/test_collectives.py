from autotm_jax.compile import Collectives, collectives


HLO = """HloModule step

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body (state: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %part = f32[4,8]{1,0} get-tuple-element(%state), index=1
  %ag-start = (f32[4,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%part), dimensions={0}
  %ag-done = f32[16,8]{1,0} all-gather-done(%ag-start)
  %rs = f32[4,8]{1,0} reduce-scatter(%ag-done), dimensions={0}, to_apply=%add
}

%condition (state: (s32[], f32[4,8])) -> pred[] {
  ROOT %less = pred[] compare(%state, %state), direction=LT
}

%unused (x: f32[8]) -> f32[8] {
  ROOT %other = f32[8]{0} all-reduce(%x), to_apply=%add
}

ENTRY %main (x: bf16[8], state: (s32[], f32[4,8])) -> bf16[8] {
  %x = bf16[8]{0} parameter(0)
  %y = pred[3]{0} constant({...})
  %w = (s32[], f32[4,8]) while(%state), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %both = (bf16[8]{0}, pred[3]{0}) all-reduce-start(%x, %y), to_apply=%add
  %done = (bf16[8]{0}, pred[3]{0}) all-reduce-done(%both)
}
"""


def test_collectives_count_for_each_iteration_by_their_larger_side():
    found = collectives(HLO)
    assert found.count == {"all-gather": 5, "reduce-scatter": 5, "all-reduce": 1}
    whole = 16 * 8 * 4
    assert found.nbytes == {
        "all-gather": 5 * whole,
        "reduce-scatter": 5 * whole,
        "all-reduce": 2 * 8 + 3,
    }
    assert found.total == 11
    assert str(found) == "5 all-gather, 1 all-reduce, 5 reduce-scatter"


def test_an_executable_without_any():
    found = collectives("HloModule f\n\nENTRY %main () -> f32[] {\n}\n")
    assert found == Collectives({}, {})
    assert str(found) == "none"
