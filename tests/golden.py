"""Values that can be checked by hand, from the equations of the papers.

Computed in float64 from the printed equations; the layer tests compare against them.
"""

DFN_INTERNAL = {
    "target": [1.0, 0.0],
    "behaviours": [[0.0, 1.0], [1.0, 1.0]],
    "mean": [0.7176190048073542, 0.7176190048073542],
    "sum": [2.1528570144220627, 2.1528570144220627],
    "two_heads": [0.7570383457952702, 0.7570383457952702],
    "two_heads_head_scale": [0.7853139532242465, 0.7853139532242465],
    "no_behaviour": [1.0, 0.0],
    "one_behaviour": [0.5, 0.5],
}

DFN_EXTERNAL = {
    "instructor": [1.0, 2.0],
    "behaviours": [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]],
    "softmax": [0.15469789788441718, 0.5752103826044414],
    "linear": [0.3333333333333333, 0.6666666666666666],
    "third_masked": [0.2689414213699951, 0.7310585786300049],
    "scaled_by_sqrt_2": [0.143966164697882, 0.435946100171984],
    "empty": [0.0, 0.0],
}

DFN_LOSS = {
    "logits": [1.2, -0.3, 0.4],
    "terms": [0.26328246733803135, 0.5543552444685272, 0.9130152523999526],
    "loss": 3.3159300786020283,
    "unweighted": 0.5768843214021704,
}
